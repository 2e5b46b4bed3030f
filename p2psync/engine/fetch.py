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
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from blake3 import blake3

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


@dataclass
class Chosen:
    """What one look at the needs found: what can be applied now, and what must be fetched."""

    now: dict[bytes, Want] = field(default_factory=dict)
    small: dict[bytes, int] = field(default_factory=dict)
    large: dict[bytes, int] = field(default_factory=dict)
    paths: dict[bytes, dict[bytes, Want]] = field(default_factory=dict)


class Fetcher:
    """The fetching task of one replica."""

    def __init__(self, replica: Owner) -> None:
        self._replica = replica
        self.wake = asyncio.Event()
        self._in_flight: set[bytes] = set()
        self._packs: set[asyncio.Task[None]] = set()
        self._retry_at: dict[bytes, float] = {}
        self._large = LargeFetcher(replica, self._source)

    async def run(self) -> None:
        """Fetch and apply for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                self.wake.clear()
                busy = self._replica.may_apply and await self._round(group)
                if not busy:
                    await self._rest()

    async def _rest(self) -> None:
        soonest = min(self._retry_at.values(), default=None)
        timeout = None if soonest is None else max(0.05, soonest - time.monotonic())
        try:
            async with asyncio.timeout(timeout):
                await self.wake.wait()
        except TimeoutError:
            now = time.monotonic()
            self._retry_at = {p: at for p, at in self._retry_at.items() if at > now}

    def retry_soon(self, paths: Iterable[bytes]) -> None:
        """The cause of these paths' trouble may be gone."""
        for path in paths:
            self._retry_at.pop(path, None)
        self.wake.set()

    # ------------------------------------------------------------------ one round

    async def _round(self, group: asyncio.TaskGroup) -> bool:
        """Apply what is at hand, start fetching what is not; False: nothing to do now."""
        chosen = await self._replica.worker(self._choose)
        if chosen.now:
            applied = await self._replica.apply(chosen.now, {}, {})
            self.took(applied)
            if applied.done:
                return True
        # what was not done waits for a content that is still elsewhere (a loser for its winner)
        started = self._start_packs(group, chosen) + self._start_large(group, chosen)
        if not started and not self._packs:
            return False
        if self._packs:
            await self._pack_or_news()
        return bool(started or self._packs)

    async def _pack_or_news(self) -> None:
        """Wait for a pack; a peer that lets us wait for one does not keep us from the rest."""
        news = asyncio.create_task(self.wake.wait())
        try:
            await asyncio.wait({*self._packs, news}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()

    def _choose(self) -> Chosen:
        """Look at the needs, smallest first; in the worker thread."""
        replica = self._replica
        excluded = len(self._retry_at) + len(self._in_flight) + self._unavailable()
        chosen = Chosen()
        for path, want in replica.stock.index.needed(
            limit=WINDOW + excluded, smallest_first=True
        ):
            if path in self._retry_at:
                continue
            place = want.place
            if place is None or place.kind is not Kind.FILE:
                chosen.now[path] = want
                continue
            content = place.content
            if content in self._in_flight:
                continue
            if replica.stock.applier.at_hand(content):
                chosen.now[path] = want
            else:
                kind = chosen.small if place.size <= limits.SMALL_FILE else chosen.large
                kind[content] = place.size
                chosen.paths.setdefault(content, {})[path] = want
        return chosen

    def _unavailable(self) -> int:
        return max((len(link.gone) for link in self._replica.links), default=0)

    def took(self, applied: Applied) -> None:
        """Note what a batch could not do, and when to try again."""
        later = time.monotonic() + RETRY_S
        for problem in applied.problems:
            self._retry_at[problem.path] = later
        for path in applied.rescan:
            self._retry_at[path] = time.monotonic() + 0.2
        self._replica.took(applied)

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
            wants = {content: chosen.paths[content] for content in pack}
            self._in_flight.update(pack)
            link.packs += 1
            task = group.create_task(self._fetch_pack(link, wants))
            self._packs.add(task)
            task.add_done_callback(self._packs.discard)
            started += 1
        return started

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

    async def _fetch_pack(self, link: Link, wants: dict[bytes, dict[bytes, Want]]) -> None:
        link.open_asks += 1
        left = set(wants)
        try:
            data: dict[bytes, bytes] = {}
            async for answer in link.files(self._replica.folder, list(wants)):
                link.gone.update(answer.gone)
                data |= true_files(answer, wants)
                if answer.last or sum(map(len, data.values())) >= limits.PACK_BYTES:
                    await self._apply_files(data, wants)
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
            self.wake.set()

    async def _apply_files(
        self, data: dict[bytes, bytes], wants: dict[bytes, dict[bytes, Want]]
    ) -> None:
        batch = {path: want for content in data for path, want in wants[content].items()}
        if batch:
            self.took(await self._replica.apply(batch, data, {}))
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
                self.took(applied)
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


def true_files(answer: Files, wanted: Collection[bytes]) -> dict[bytes, bytes]:
    """Return those files of an answer that were asked for, by content.

    Raises:
        RemoteProtocolError: bytes do not hash to what they are said to be.
    """
    data = {content: data for content, data in answer.files if content in wanted}
    if any(blake3(data[content]).digest() != content for content in data):
        raise RemoteProtocolError("bytes of another file than asked for")
    return data
