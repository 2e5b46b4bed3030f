"""Getting what is needed: choosing, asking whoever has it, handing it on to be applied.

Small contents travel whole, many in one answer, and are staged as they come; large ones are
assembled chunk by chunk in staging, reusing chunks that other files here already hold, and what
was assembled survives a restart. Smaller comes first, so that a fresh note does not wait for a
film.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from p2psync.core import paths
from p2psync.core.index import Want
from p2psync.engine.apply import Applied
from p2psync.engine.large import LargeFetcher
from p2psync.engine.link import Link
from p2psync.engine.needs import Needs, Sighted, content_of, sight
from p2psync.engine.owner import UNANSWERED, Owner
from p2psync.engine.stager import BATCH_FILES, Staged, Stager
from p2psync.errors import ChannelClosedError, RemoteProtocolError
from p2psync.fs.ground import problem_of
from p2psync.protocol import limits
from p2psync.store.rows import FIRST, Position

logger = logging.getLogger(__name__)

WINDOW = 2_048  # needs looked at in one go
FEW = 1_024  # of them left in the queue: look at more
FRESH = 512  # needs that came at once and are looked at before all others
FULL = 4_096  # in the queue: what comes up now can wait in the index
PACKS_AT_ONCE = 4  # of one peer
PACK_FILES = 1_000
LARGE_AT_ONCE = 2  # first asked of one peer
RETRY_S = 30.0
AGAIN_S = 0.2  # after which a place that was not as its row said is tried again, at first
ASK_AGAIN_S = 480.0  # at the latest, for what all connected peers said they lack


@dataclass(frozen=True)
class Pause:
    """Until when a path is left alone, by the monotonic clock, and how long that is."""

    until: float
    length_s: float


class _Standing(NamedTuple):
    """What has to wait. troubled: paths that could not be applied, some to be tried again now.

    gone: contents that every connected peer said it lacks. burst: paths that are applied with
    what is in flight.
    """

    paused: Collection[bytes]
    troubled: Collection[bytes]
    gone: Collection[bytes]
    burst: Collection[bytes]

    def waits(self, path: bytes, want: Want) -> bool:
        """Say whether nothing can be done about a need now."""
        if path in self.burst or (self.gone and content_of(want) in self.gone):
            return True
        if not self.paused:
            return False
        # what is to go does not wait for what is around it
        return path in self.paused if want.place is None else _below_any(path, self.paused)


class Fetcher:
    """The fetching task of one replica."""

    def __init__(self, replica: Owner) -> None:
        self._replica = replica
        self.wake = asyncio.Event()
        self._needs = Needs()
        self._fresh: dict[bytes, Want] = {}
        self._position: Position | None = FIRST  # in the index's needs; None: at their end
        self._in_flight: dict[bytes, dict[bytes, Want]] = {}  # content -> where it is wanted
        self._burst: Mapping[bytes, Want] = {}  # is applied together with what is in flight
        self._stager = Stager(replica, self._staged_applied)
        self._moves_due = True  # something goes, and nobody has looked for directories yet
        self.idle = True
        """Nothing can be done now about what is needed, if anything is."""

        self._pauses: dict[bytes, Pause] = {}
        self._looked_at = 0.0  # when the needs were last looked at from the beginning
        self._ask_again_s = RETRY_S
        self._ask_again_at: float | None = None
        self._large = LargeFetcher(replica, self._source)

    async def run(self) -> None:
        """Fetch and apply for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._stager.run())
            while True:
                self.wake.clear()
                self._forgive()
                busy = self._replica.may_apply and await self._round(group)
                if not busy:
                    await self._rest()

    def look_again(self) -> None:
        """Something changed about what can be had or applied: look at all needs anew."""
        self._position = FIRST
        self.wake.set()

    def fresh(self, needed: Mapping[bytes, Want | None]) -> None:
        """These needs came up just now (None: the path is as wanted)."""
        self._moves_due |= any(want and want.place is None for want in needed.values())
        queued = len(self._fresh) + len(self._needs)
        # a peer that is just indexing tells 512 at a time: the queue would grow to all of them
        if len(needed) > FRESH or len(self._fresh) > FRESH or queued > FULL:
            self.look_again()
        else:
            self._fresh.update((path, want) for path, want in needed.items() if want)
            self.wake.set()

    async def _rest(self) -> None:
        now = time.monotonic()
        ends = [pause.until for pause in self._pauses.values()]
        ends = [end for end in (*ends, self._batch_ends()) if end > now]
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
        if any(self._looked_at < pause.until <= now for pause in self._pauses.values()):
            self._position = FIRST
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
            self._position = FIRST
            self._ask_again_s = min(2 * self._ask_again_s, ASK_AGAIN_S)
            self._ask_again_at = None

    def retry_soon(self, tried: Iterable[bytes]) -> None:
        """The cause of these paths' trouble may be gone."""
        for path in tried:
            self._pauses.pop(path, None)
        self.look_again()

    def retry_all(self) -> None:
        """Somebody waits: try now whatever was in trouble."""
        self.retry_soon(list(self._pauses))

    # ------------------------------------------------------------------ one round

    async def _round(self, group: asyncio.TaskGroup) -> bool:
        """Apply what is at hand, start fetching what is not; False: nothing to do now.

        In the middle of a batch of entries what is at hand waits, and what is to be shown
        together with it: see `Batch`.
        """
        ended = self._batch_ends() <= time.monotonic()
        if self._moves_due and ended:
            await self._move_directories()
        await self._look()
        needs = self._needs
        burst = self._is_burst()
        if burst and not ended:
            return False
        if burst:
            self._start_burst(group)
        started = self._start_packs(group) + self._start_large(group)
        if needs.now and ended:
            chosen = needs.take_now(BATCH_FILES)
            self.took(await self._replica.apply(chosen, {}, {}), chosen)
            return True
        return started > 0

    def _batch_ends(self) -> float:
        """Return until when the end of a batch is waited for, by the monotonic clock."""
        return max((link.batch.until for link in self._replica.links), default=-math.inf)

    async def _move_directories(self) -> None:
        """Rename whole directories, before any file in one is touched."""
        self._moves_due = False
        applied = await self._replica.move_directories()
        if applied.done:
            self._needs = Needs()
            self.look_again()
        if applied.done or applied.rescan:
            self.took(applied)

    async def _look(self) -> None:
        """Look at what came up just now, and at more needs while few are left in the queue.

        What cannot be had or placed now does not count, however much of it there is.
        """
        if self._fresh:
            fresh, self._fresh = self._fresh, {}
            standing = self._standing()
            sighted = await self._replica.worker(self._sight, list(fresh.items()), standing)
            self._queue(sighted, first=True)
        while self._position is not None and len(self._needs) < FEW:
            if self._position == FIRST:
                self._looked_at = time.monotonic()
            position, self._position = self._position, None  # `look_again` may set it
            sighted, end = await self._replica.worker(
                self._sight_page, position, self._standing()
            )
            if self._position is None:
                self._position = end
            self._queue(sighted, first=False)

    def _standing(self) -> _Standing:
        """Return what has to wait now: a copy, for the worker thread."""
        now = time.monotonic()
        gone = [set(link.gone) for link in self._replica.links]
        return _Standing(
            {path for path, pause in self._pauses.items() if pause.until > now},
            set(self._pauses),
            set.intersection(*gone) if gone else set(),
            self._burst.keys(),
        )

    def _sight_page(
        self, position: Position, standing: _Standing
    ) -> tuple[list[Sighted], Position | None]:
        """Look at the next needs of the index, and say where they end; None: there is no more.

        In one unit with the look at the rows: what is applied meanwhile is still in flight when
        this is queued, and is not begun twice.
        """
        needed, end = self._replica.stock.index.needed_by_size(position, WINDOW)
        return self._sight(needed, standing), end if len(needed) == WINDOW else None

    def _sight(self, needed: list[tuple[bytes, Want]], standing: _Standing) -> list[Sighted]:
        """Look at those of these needs that do not have to wait; in the worker thread."""
        left = [(path, want) for path, want in needed if not standing.waits(path, want)]
        return sight(self._replica.stock, left, standing.troubled)

    def _queue(self, sighted: list[Sighted], *, first: bool) -> None:
        """Queue what can be begun."""
        obstructed = [one.path for one in sighted if one.obstructed]
        if obstructed:
            self.took(Applied(rescan=obstructed))
        self._needs.add(
            [one for one in sighted if not one.obstructed and not self._flies(one)], first=first
        )

    def _flies(self, one: Sighted) -> bool:
        """Say whether the content is under way already; if so it will serve this path too."""
        content = content_of(one.want)
        wants = self._in_flight.get(content) if content else None
        if wants is None or one.here:
            return False
        wants.setdefault(one.path, one.want)
        return True

    def took(self, applied: Applied, tried: Iterable[bytes] = ()) -> None:
        """Note what a batch could not do, and when to try again.

        tried: the paths it was to apply. Those it left out build on something in trouble.
        """
        troubled = {problem.path for problem in applied.problems}
        waiting = {*applied.rescan, *tried}.difference(applied.done, applied.settled, troubled)
        for path in troubled:
            self._pause(path, RETRY_S)
        for path in waiting:
            self._pause(path, AGAIN_S)
        if troubled or waiting:  # what is below them is not to be fetched now
            self._needs = Needs()
            self.look_again()
        else:
            self._needs.forget(applied.done)  # more than was tried, where one needs the other
        self._release(applied.done)
        self.fresh(applied.needed)
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
        if self._pauses:
            placed = set(done)
            above = {directory for path in done for directory in paths.ancestors(path)}
            for path in list(self._pauses):
                if path in above or _below_any(path, placed):
                    del self._pauses[path]
                    self._position = FIRST

    def _source(
        self, content: bytes, fits: Callable[[Link], bool] = lambda link: True
    ) -> Link | None:
        """The least busy connected peer that has not said it lacks the content, and fits."""
        links = [
            link for link in self._replica.links if content not in link.gone and fits(link)
        ]
        return min(links, key=lambda link: link.open_asks, default=None)

    # ------------------------------------------------------------------ small files

    def _is_burst(self) -> bool:
        """Say whether all that is needed fits one request: then it is shown all together.

        So a save of a project or a small checkout is staged whole before any of it is visible
        (design 6.5). What is larger, or in trouble, comes pack by pack.
        """
        needs = self._needs
        return bool(
            needs.now
            and needs.small
            and not (needs.large or self._position or self._in_flight or self._pauses)
            and len(needs) <= PACK_FILES
            and sum(needs.small.values()) <= limits.PACK_BYTES
        )

    def _start_burst(self, group: asyncio.TaskGroup) -> None:
        link, pack = self._next_pack()
        if link is not None and len(pack) == len(self._needs.small):
            self._burst = self._needs.take_now(PACK_FILES)
            self._start_pack(group, link, pack, self._burst)

    def _start_packs(self, group: asyncio.TaskGroup) -> int:
        started = 0
        while True:
            link, pack = self._next_pack()
            if link is None:
                return started
            self._start_pack(group, link, pack, {})
            started += 1

    def _start_pack(
        self,
        group: asyncio.TaskGroup,
        link: Link,
        pack: Iterable[bytes],
        along: Mapping[bytes, Want],
    ) -> None:
        wants = {content: self._needs.take(content) for content in pack}
        self._in_flight |= wants
        link.packs += 1
        group.create_task(self._fetch_pack(link, wants, along))

    def _next_pack(self) -> tuple[Link | None, list[bytes]]:
        """Return who is asked next, the least busy peer with room, and for which contents."""
        links = [link for link in self._replica.links if link.packs < PACKS_AT_ONCE]
        for link in sorted(links, key=lambda link: link.open_asks):
            pack: list[bytes] = []
            size = 0
            for content, length in self._needs.small.items():
                if content in link.gone:
                    continue
                pack.append(content)
                size += length
                if size >= limits.PACK_BYTES or len(pack) == PACK_FILES:
                    break
            if pack:
                return link, pack
        return None, []

    async def _fetch_pack(
        self, link: Link, wants: dict[bytes, dict[bytes, Want]], along: Mapping[bytes, Want]
    ) -> None:
        """Fetch small files and stage them; along: what is applied together with them."""
        link.open_asks += 1
        left = set(wants)
        together = Staged(wants=dict(along)) if along else None
        try:
            async for answer in link.files(self._replica.folder, list(wants)):
                link.gone.update(answer.gone)
                given = {c: dict(wants[c]) for c, _ in answer.files if c in left}
                staged = await self._stager.stage(answer.files, given)
                left -= staged.contents
                if together is None:
                    await self._stager.apply_soon(staged)
                else:
                    together.join(staged)
            if together is not None and together.contents:
                await self._stager.apply_soon(together)
                together = None
            link.gone.update(left)  # asked again at once, they would be left out again
        except ChannelClosedError:
            logger.debug("a peer left while it was giving files")
        except (RemoteProtocolError, TimeoutError) as error:
            link.conversation.fail(str(error) or UNANSWERED)
        finally:
            link.open_asks -= 1
            link.packs -= 1
            for content in left:
                self._in_flight.pop(content, None)
            if together is not None:
                self._burst = {}
                await self._stager.drop(together)
            if left or together is not None:
                self.look_again()
            self.wake.set()

    def _staged_applied(self, staged: Staged, applied: Applied) -> None:
        """A batch is over: what came up meanwhile about its contents is looked at."""
        for content in staged.contents:
            self._came_up(self._in_flight.pop(content, {}), staged.wants)
        if self._burst.keys() <= staged.wants.keys():
            self._burst = {}
        self.took(applied, staged.wants)
        self.wake.set()

    def _came_up(self, wants: Mapping[bytes, Want], served: Mapping[bytes, Want]) -> None:
        """Look at the paths that began to want a content while it was under way."""
        self._fresh.update((path, want) for path, want in wants.items() if path not in served)

    # ------------------------------------------------------------------ large files

    def _start_large(self, group: asyncio.TaskGroup) -> int:
        started = 0
        for content, size in list(self._needs.large.items()):
            if all(link.larges >= LARGE_AT_ONCE for link in self._replica.links):
                break
            link = self._source(content, lambda link: link.larges < LARGE_AT_ONCE)
            if link is None:
                continue
            link.larges += 1
            wants = self._in_flight[content] = self._needs.take(content)
            path, want = next(iter(wants.items()))
            group.create_task(self._fetch_large(link, content, size, {path: want}))
            started += 1
        return started

    async def _fetch_large(
        self, first: Link, content: bytes, size: int, wants: dict[bytes, Want]
    ) -> None:
        try:
            applied = await self._large.fetch(first, content, size, wants)
            if applied is None:
                self.look_again()  # another peer may have it, or this one the whole manifest
            else:
                self.took(applied, wants)
                if content in applied.false:
                    self.retry_soon(wants)
        except ChannelClosedError:
            logger.debug("a peer left while it was giving chunks")
            self.look_again()
        except OSError as error:
            path = next(iter(wants))
            self.took(Applied(problems=[problem_of(path, error)]))
        finally:
            first.larges -= 1
            self._came_up(self._in_flight.pop(content, {}), wants)
            self.wake.set()


def _below_any(path: bytes, among: Collection[bytes]) -> bool:
    return path in among or any(above in among for above in paths.ancestors(path))
