"""The scanning task of one replica: where to look, when, and at what pace.

Hints of the watcher, doubts of the provider and the pace of full scans come together here; a
full scan's cost decides when the next one is due, so that a slow disk is not worn out. Hints
are followed between two units of a full scan: a save does not wait for a million files.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, Protocol

from p2psync.engine.scanning import Found
from p2psync.engine.stock import Stock
from p2psync.engine.worker import Worker
from p2psync.errors import RootTrouble
from p2psync.fs.watch import Hint

PAUSE_MIN_S: Final = 60.0
PAUSE_MAX_S: Final = 86_400.0
PAUSE_PER_CPU_S: Final = 500.0  # seconds of pause for each CPU second of the last full scan
AGAIN_S: Final = 0.3  # a file that was still being written is looked at again


class Owner(Protocol):
    """What the survey needs of the replica it works for."""

    stock: Stock
    worker: Worker

    @property
    def may_scan(self) -> bool:
        """False while held, and in safe mode before a peer has told what there should be."""
        ...

    def note(self, found: Found) -> None:
        """Keep what a unit found out."""
        ...

    def stirred(self) -> None:
        """The index changed."""
        ...

    def hold(self, reason: str) -> None:
        """The root cannot be used."""
        ...

    def surveyed(self) -> None:
        """A scan is over."""
        ...


class Survey:
    """Scans one replica's root, on request and in its own time."""

    def __init__(self, owner: Owner) -> None:
        self.first = True
        """True until everything has been looked at once since the root was opened."""

        self.counted = (0, 0, False)
        """Files and bytes known so far, and whether that is all."""

        self._owner = owner
        self._hint = Hint()
        self._waiting: list[asyncio.Future[None]] = []
        self._wanted = asyncio.Event()
        self._due = 0.0
        self._over = False

    def give_up(self) -> None:
        """There will be no scan any more: nobody has to wait for one."""
        self._over = True
        self._finish(self._waiting)

    def follow(self, hint: Hint) -> None:
        """Ask for a look where the hint points."""
        self._hint.join(hint)
        self._wanted.set()

    async def now(self) -> None:
        """Scan everything once, beginning after this call, and wait until it is done.

        Returns at once when nothing may be scanned now (the replica says why).
        """
        if self._over:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._wanted.set()
        await done

    async def run(self) -> None:
        """Scan for ever."""
        owner = self._owner
        while True:
            await self._wait()
            waiting = list(self._waiting)
            if owner.may_scan:
                try:
                    if waiting or self._needs_all or self._is_due() or owner.stock.safe:
                        await self._scan_everything()
                    else:
                        await self._follow_hint()
                except RootTrouble as trouble:
                    owner.hold(str(trouble))
                owner.surveyed()
            self._finish(waiting)

    def _finish(self, waiting: list[asyncio.Future[None]]) -> None:
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting = [waiter for waiter in self._waiting if not waiter.done()]

    async def _wait(self) -> None:
        due = self._due if self._owner.may_scan else 0.0  # what lets it scan again wakes it
        left = max(0.0, due - time.monotonic()) if due else None
        with suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._wanted.wait()
        self._wanted.clear()

    @property
    def _needs_all(self) -> bool:
        """Only a full scan takes up rules that were touched."""
        return self._hint.everything or self._hint.rules

    def _is_due(self) -> bool:
        return 0 < self._due <= time.monotonic()

    async def _follow_hint(self) -> None:
        stock = self._owner.stock
        hint, self._hint = self._hint, Hint()
        if hint:
            await self._units(stock.scanner.hinted(hint, stock.rules))

    async def _scan_everything(self) -> None:
        """Look at all there is; in safe mode, adopt it."""
        owner, stock = self._owner, self._owner.stock
        self._hint = Hint()
        await owner.worker(stock.root.check)
        await owner.worker(stock.load_rules)
        cost = await self._units(stock.scanner.tree(b"", stock.rules), whole=True)
        news = self.first or stock.safe  # peers wait for it
        if stock.safe:
            await owner.worker(stock.leave_safe_mode)
        self.first = False
        if news:
            owner.stirred()
        self._due = time.monotonic() + pause_after(cost)

    async def _units(self, scan: Iterator[Found], *, whole: bool = False) -> float:
        """Run a scan unit by unit; return the worker's CPU seconds.

        whole: it is a full scan, between whose units hints are followed.
        """
        owner, cost = self._owner, 0.0

        def one() -> tuple[Found | None, float]:
            began = time.thread_time()
            found = next(scan, None)
            complete = not self.first or (whole and found is None)
            self.counted = (*owner.stock.index.totals(), complete)
            return found, time.thread_time() - began

        while True:
            found, spent = await owner.worker(one)
            cost += spent
            if found is None:
                return cost
            for path in found.ahead:  # all but this task goes on meanwhile
                cost += await asyncio.to_thread(_timed, owner.stock.scanner.look_ahead, path)
            self._note(found)
            if found.over is not None and not whole:
                return cost  # nothing comes any more: one turn of the worker less
            if whole and not (found.ahead or self._needs_all or owner.stock.safe):
                await self._follow_hint()

    def _note(self, found: Found) -> None:
        owner = self._owner
        owner.note(found)
        if found.again:
            again = Hint(paths=found.again)
            asyncio.get_running_loop().call_later(AGAIN_S, self.follow, again)
        if found.changed:
            owner.stirred()


def pause_after(cost_s: float) -> float:
    """Return how many seconds after a full scan that cost so much CPU the next one is due."""
    return min(PAUSE_MAX_S, max(PAUSE_MIN_S, PAUSE_PER_CPU_S * cost_s))


def _timed(act: Callable[[bytes], None], path: bytes) -> float:
    """Return the CPU seconds that it took."""
    began = time.thread_time()
    act(path)
    return time.thread_time() - began
