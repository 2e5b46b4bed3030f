"""Getting what is needed: choosing, asking whoever has it, handing it to the applier.

Small contents travel whole, many in one answer, which is applied as one batch; large ones
are assembled chunk by chunk in staging, reusing chunks that other files here already hold, and
what was assembled survives a restart. Smaller comes first, so that a fresh note does not wait
for a film.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from blake3 import blake3

from p2psync.core import paths
from p2psync.core.entry import Kind
from p2psync.core.index import Want
from p2psync.engine.apply import Applied
from p2psync.engine.large import LargeFetcher
from p2psync.engine.link import Link
from p2psync.engine.owner import UNANSWERED, Owner
from p2psync.errors import ChannelClosedError, RemoteProtocolError
from p2psync.fs.ground import problem_of
from p2psync.protocol import limits
from p2psync.protocol.messages import Files

logger = logging.getLogger(__name__)

WINDOW = 4_096
PACKS_AT_ONCE = 4  # of one peer
PACK_FILES = 1_000
LARGE_AT_ONCE = 2  # first asked of one peer
RETRY_S = 30.0
AGAIN_S = 0.2  # after which a place that was not as its row said is tried again, at first
ASK_AGAIN_S = 480.0  # at the latest, for what all connected peers said they lack


@dataclass
class Chosen:
    """What one look at the needs found: what can be applied now, and what must be fetched."""

    now: dict[bytes, Want] = field(default_factory=dict)
    small: dict[bytes, int] = field(default_factory=dict)
    large: dict[bytes, int] = field(default_factory=dict)
    paths: dict[bytes, dict[bytes, Want]] = field(default_factory=dict)
    obstructed: list[bytes] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Return how many paths were chosen."""
        return len(self.now) + sum(map(len, self.paths.values()))


@dataclass(frozen=True)
class Pause:
    """Until when a path is left alone, by the monotonic clock, and how long that is."""

    until: float
    length_s: float


class Fetcher:
    """The fetching task of one replica."""

    def __init__(self, replica: Owner) -> None:
        self._replica = replica
        self.wake = asyncio.Event()
        self._in_flight: set[bytes] = set()
        self._burst: Mapping[bytes, Want] = {}  # is applied together with what is in flight
        self._packs: set[asyncio.Task[None]] = set()
        self.idle = True
        """Nothing can be done now about what is needed, if anything is."""

        self._pauses: dict[bytes, Pause] = {}
        self._ask_again_s = RETRY_S
        self._ask_again_at: float | None = None
        self._large = LargeFetcher(replica, self._source)

    async def run(self) -> None:
        """Fetch and apply for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                self.wake.clear()
                self._forgive()
                busy = self._replica.may_apply and await self._round(group)
                if not busy:
                    await self._rest()

    async def _rest(self) -> None:
        now = time.monotonic()
        ends = [pause.until for pause in self._pauses.values() if pause.until > now]
        if self._ask_again_at is not None:
            ends.append(self._ask_again_at)
        timeout = max(0.05, min(ends) - now) if ends else None
        self.idle = not self._in_flight
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self.wake.wait()
        self.idle = False

    def _forgive(self) -> None:
        """Ask again, now and then, for what a peer could not give: its trouble may be over."""
        now = time.monotonic()
        self._pauses = {
            path: pause for path, pause in self._pauses.items() if pause.until + RETRY_S > now
        }
        if not any(link.gone for link in self._replica.links):
            self._ask_again_at = None
        elif self._ask_again_at is None:
            self._ask_again_at = now + self._ask_again_s
        elif now >= self._ask_again_at:
            for link in self._replica.links:
                link.gone.clear()
            self._ask_again_s = min(2 * self._ask_again_s, ASK_AGAIN_S)
            self._ask_again_at = None

    def retry_soon(self, tried: Iterable[bytes]) -> None:
        """The cause of these paths' trouble may be gone."""
        for path in tried:
            self._pauses.pop(path, None)
        self.wake.set()

    def retry_all(self) -> None:
        """Somebody waits: try now whatever was in trouble."""
        self.retry_soon(list(self._pauses))

    # ------------------------------------------------------------------ one round

    async def _round(self, group: asyncio.TaskGroup) -> bool:
        """Apply what is at hand, start fetching what is not; False: nothing to do now."""
        chosen = await self._replica.worker(self._choose, self._paused(), self._unavailable())
        if chosen.obstructed:
            self.took(Applied(rescan=chosen.obstructed))
        if self._is_burst(chosen):
            self._start_burst(group, chosen)
        elif chosen.now:
            applied = await self._replica.apply(chosen.now, {}, {})
            self.took(applied, chosen.now)
            if applied.done or applied.problems or applied.rescan:
                return True  # what is below a path in trouble is not to be fetched now
        started = self._start_packs(group, chosen) + self._start_large(group, chosen)
        started += len(self._burst)
        if not started and not self._packs:
            return False
        if self._packs:
            await self._pack_or_news()
        return bool(started or self._packs)

    def _is_burst(self, chosen: Chosen) -> bool:
        """Say whether all that is needed fits one request: then it is shown all together.

        So a save of a project or a small checkout is staged whole before any of it is visible
        (design 6.5). What is larger, or in trouble, comes pack by pack.
        """
        return bool(
            chosen.now
            and chosen.small
            and not (chosen.large or chosen.obstructed or self._in_flight or self._pauses)
            and chosen.count <= PACK_FILES
            and sum(chosen.small.values()) <= limits.PACK_BYTES
        )

    def _start_burst(self, group: asyncio.TaskGroup, chosen: Chosen) -> None:
        link, pack = self._next_pack(iter(chosen.small.items()))
        if link is not None and len(pack) == len(chosen.small):
            self._burst = chosen.now
            self._start_pack(group, link, {c: chosen.paths[c] for c in pack}, chosen.now)
            chosen.small = {}

    async def _pack_or_news(self) -> None:
        """Wait for a pack; a peer that lets us wait for one does not keep us from the rest."""
        news = asyncio.create_task(self.wake.wait())
        try:
            await asyncio.wait({*self._packs, news}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()

    def _choose(self, paused: set[bytes], gone: Collection[bytes]) -> Chosen:
        """Look at the needs, smallest first; in the worker thread.

        What cannot be had or placed now does not count, however much of it there is.
        """
        chosen, after = Chosen(), None
        while chosen.count < WINDOW:
            needed = self._replica.stock.index.needed(
                limit=WINDOW, after=after, smallest_first=True
            )
            for path, want in needed:
                # what is to go does not wait for what is around it
                waits = path in paused if want.place is None else _below_any(path, paused)
                if not waits:
                    self._consider(chosen, path, want, gone)
            if len(needed) < WINDOW:
                break
            after = needed[-1][0]
        return chosen

    def _consider(
        self, chosen: Chosen, path: bytes, want: Want, gone: Collection[bytes]
    ) -> None:
        place, applier = want.place, self._replica.stock.applier
        if path in self._burst:
            return
        if place is None or place.kind is not Kind.FILE:
            chosen.now[path] = want
            return
        content = place.content
        if content in self._in_flight:
            return
        if applier.at_hand(content):
            chosen.now[path] = want
        elif path in self._pauses and not applier.as_known(path):
            chosen.obstructed.append(path)
        elif content not in gone:
            kind = chosen.small if place.size <= limits.SMALL_FILE else chosen.large
            kind[content] = place.size
            chosen.paths.setdefault(content, {})[path] = want

    def _paused(self) -> set[bytes]:
        now = time.monotonic()
        return {path for path, pause in self._pauses.items() if pause.until > now}

    def _unavailable(self) -> Collection[bytes]:
        """Return the contents that every connected peer said it lacks."""
        gone = [set(link.gone) for link in list(self._replica.links)]
        return set.intersection(*gone) if gone else ()

    def took(self, applied: Applied, tried: Iterable[bytes] = ()) -> None:
        """Note what a batch could not do, and when to try again.

        tried: the paths it was to apply. Those it left out build on something in trouble.
        """
        troubled = {problem.path for problem in applied.problems}
        for path in troubled:
            self._pause(path, RETRY_S)
        for path in {*applied.rescan, *tried}.difference(applied.done, troubled):
            self._pause(path, AGAIN_S)
        self._release(applied.done)
        self._replica.took(applied)

    def _pause(self, path: bytes, at_least_s: float) -> None:
        earlier = self._pauses.get(path)
        twice = 2 * earlier.length_s if earlier else 0.0
        length_s = min(RETRY_S, max(at_least_s, twice))
        self._pauses[path] = Pause(time.monotonic() + length_s, length_s)

    def _release(self, done: Collection[bytes]) -> None:
        """What waited for a directory around it or a child of it need not wait any more."""
        if not done:
            return
        self._ask_again_s = RETRY_S
        for path in done:
            self._pauses.pop(path, None)
        if self._pauses:
            placed = set(done)
            above = {directory for path in done for directory in paths.ancestors(path)}
            for path in list(self._pauses):
                if path in above or _below_any(path, placed):
                    del self._pauses[path]

    def _source(
        self, content: bytes, fits: Callable[[Link], bool] = lambda link: True
    ) -> Link | None:
        """The least busy connected peer that has not said it lacks the content, and fits."""
        links = [
            link for link in self._replica.links if content not in link.gone and fits(link)
        ]
        return min(links, key=lambda link: link.open_asks, default=None)

    # ------------------------------------------------------------------ small files

    def _start_packs(self, group: asyncio.TaskGroup, chosen: Chosen) -> int:
        started = 0
        waiting = iter(chosen.small.items())
        while True:
            link, pack = self._next_pack(waiting)
            if link is None:
                break
            self._start_pack(group, link, {c: chosen.paths[c] for c in pack}, {})
            started += 1
        return started

    def _start_pack(
        self,
        group: asyncio.TaskGroup,
        link: Link,
        wants: dict[bytes, dict[bytes, Want]],
        along: Mapping[bytes, Want],
    ) -> None:
        self._in_flight.update(wants)
        link.packs += 1
        task = group.create_task(self._fetch_pack(link, wants, along))
        self._packs.add(task)
        task.add_done_callback(self._packs.discard)

    def _next_pack(
        self, waiting: Iterable[tuple[bytes, int]]
    ) -> tuple[Link | None, list[bytes]]:
        link: Link | None = None
        pack: list[bytes] = []
        size = 0
        for content, length in waiting:
            source = self._source(content, lambda link: link.packs < PACKS_AT_ONCE)
            if source is None or (link is not None and content in link.gone):
                continue
            link = link or source
            pack.append(content)
            size += length
            if size >= limits.PACK_BYTES or len(pack) == PACK_FILES:
                break
        return link, pack

    async def _fetch_pack(
        self,
        link: Link,
        wants: dict[bytes, dict[bytes, Want]],
        along: Mapping[bytes, Want],
    ) -> None:
        """Fetch small files and apply them; along: what is applied together with them."""
        link.open_asks += 1
        left = set(wants)
        try:
            data: dict[bytes, bytes] = {}
            async for answer in link.files(self._replica.folder, list(wants)):
                link.gone.update(answer.gone)
                data |= true_files(answer, wants)
                if answer.last or sum(map(len, data.values())) >= limits.PACK_BYTES:
                    await self._apply_files(data, wants, along)
                    left.difference_update(data)
                    data = {}
            link.gone.update(left)  # asked again at once, they would be left out again
        except ChannelClosedError:
            logger.debug("a peer left while it was giving files")
        except (RemoteProtocolError, TimeoutError) as error:
            link.conversation.fail(str(error) or UNANSWERED)
        finally:
            link.open_asks -= 1
            link.packs -= 1
            self._in_flight.difference_update(wants)
            if along:
                self._burst = {}
            self.wake.set()

    async def _apply_files(
        self,
        data: dict[bytes, bytes],
        wants: dict[bytes, dict[bytes, Want]],
        along: Mapping[bytes, Want],
    ) -> None:
        batch = {path: want for content in data for path, want in wants[content].items()}
        if batch:
            batch |= along
            self.took(await self._replica.apply(batch, data, {}), batch)
        self._in_flight.difference_update(data)

    # ------------------------------------------------------------------ large files

    def _start_large(self, group: asyncio.TaskGroup, chosen: Chosen) -> int:
        started = 0
        for content, size in chosen.large.items():
            link = self._source(content, lambda link: link.larges < LARGE_AT_ONCE)
            if link is None:
                continue
            self._in_flight.add(content)
            link.larges += 1
            path, want = next(iter(chosen.paths[content].items()))
            group.create_task(self._fetch_large(link, content, size, {path: want}))
            started += 1
        return started

    async def _fetch_large(
        self, first: Link, content: bytes, size: int, wants: dict[bytes, Want]
    ) -> None:
        try:
            applied = await self._large.fetch(first, content, size, wants)
            if applied is not None:
                self.took(applied, wants)
                if content in applied.false:
                    self.retry_soon(wants)
        except ChannelClosedError:
            logger.debug("a peer left while it was giving chunks")
        except OSError as error:
            path = next(iter(wants))
            self.took(Applied(problems=[problem_of(path, error)]))
        finally:
            first.larges -= 1
            self._in_flight.discard(content)
            self.wake.set()


def _below_any(path: bytes, among: Collection[bytes]) -> bool:
    return path in among or any(above in among for above in paths.ancestors(path))


def true_files(answer: Files, wanted: Collection[bytes]) -> dict[bytes, bytes]:
    """Return those files of an answer that were asked for, by content.

    Raises:
        RemoteProtocolError: bytes do not hash to what they are said to be.
    """
    data = {content: data for content, data in answer.files if content in wanted}
    if any(blake3(data[content]).digest() != content for content in data):
        raise RemoteProtocolError("bytes of another file than asked for")
    return data
