"""How a replica stands: its state in one word, whether it equals a peer, what `status` shows.

Everything is read in the worker thread, so that an answer is of one moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from p2psync.core import vector
from p2psync.core.ids import FolderId
from p2psync.engine.events import FolderStatus, State
from p2psync.engine.fetch import Fetcher
from p2psync.engine.link import Link
from p2psync.engine.problems import Problems
from p2psync.engine.stock import Stock
from p2psync.engine.survey import Survey
from p2psync.engine.worker import Worker
from p2psync.store.home import FolderRecord


class Standing:
    """The part of a replica that others ask."""

    record: FolderRecord
    folder: bytes
    failure: str
    trouble: str
    clash: str
    links: list[Link]
    problems: Problems
    fetcher: Fetcher
    survey: Survey
    stock: Stock
    worker: Worker
    _members: Callable[[], Collection[bytes]]
    _opened: asyncio.Event
    _ended: bool

    @property
    def is_open(self) -> bool:
        """True while the index can be used."""
        return self._opened.is_set() and not self._ended

    @property
    def held(self) -> str:
        """Why nothing is scanned or applied now, in words; "" when it is."""
        return self.trouble or self.clash

    def _equal_with(self, link: Link) -> bool:
        """Say whether both know the same, and neither lacks anything; durable if so."""
        equal = (
            link.exchange.told.need_files == 0
            and self._need() == (0, 0)
            and self._knows_as_much(link)
        )
        if equal:
            self.stock.index.settle()
        return equal

    def _need(self) -> tuple[int, int]:
        """Return what is lacking here, files and bytes; in the worker thread.

        At least one file until everything was looked at: with a huge file still being hashed
        nobody, here or there, is to believe that all is equal.
        """
        files, size = self.stock.need()
        return (max(files, 1), size) if self.survey.first and not self.held else (files, size)

    def _rests_with(self, link: Link) -> bool:
        """Say whether both know the same, and who lacks anything gets no further with it."""
        told = link.exchange.told
        return (
            (told.need_files == 0 or told.stuck)
            and (self._need() == (0, 0) or self._stuck())
            and self._knows_as_much(link)
        )

    def _knows_as_much(self, link: Link) -> bool:
        told = link.exchange.told
        mine = self.stock.index.facts().known
        return (
            told.marked
            and told.known is not None
            and vector.includes(told.known, mine)
            and vector.includes(mine, told.known)
        )

    async def equal_with(self, peer: bytes) -> bool:
        """Say whether this replica and this connected peer have everything of each other."""
        links = [link for link in self.links if link.conversation.key == peer]
        return self.is_open and bool(links) and await self.worker(self._equal_with, links[0])

    async def rests(self, peer: bytes | None = None) -> bool:
        """Say whether nothing goes on with this connected peer (None: with any of them).

        What is missing then stays so until somebody does something, here or there.
        """
        links = [link for link in self.links if peer in (None, link.conversation.key)]
        if not links or not self.is_open:
            return False
        return await self.worker(lambda: all(map(self._rests_with, links)))

    def blocked_there(self, peer: bytes | None = None) -> bool:
        """Say whether a connected peer lacks something and gets no further with it."""
        return any(
            link.exchange.told.stuck
            for link in self.links
            if peer in (None, link.conversation.key)
        )

    async def in_sync(self) -> bool:
        """Say whether this device and every connected member have everything; one at least."""
        links = list(self.links)
        if not links or not self.is_open:
            return False
        return await self.worker(lambda: all(map(self._equal_with, links)))

    async def status(self) -> FolderStatus:
        """Return a snapshot for `status`."""
        if not self.is_open:
            state = State.HELD if self.failure else State.SCANNING
            return self._snapshot(state, self.failure or self.held, (0, 0), (0, 0))
        return await self.worker(self._look)

    def _look(self) -> FolderStatus:
        self.stock.index.settle()
        need, totals = self.stock.lacking(), self.stock.index.totals()
        state = self._state(need[0])
        detail = self._detail(need[0])
        return self._snapshot(state, detail, need, totals, tuple(self.stock.index.conflicts()))

    def _snapshot(
        self,
        state: State,
        detail: str,
        need: tuple[int, int],
        totals: tuple[int, int],
        conflicts: tuple[bytes, ...] = (),
    ) -> FolderStatus:
        record = self.record
        problems = self.problems.all()
        return FolderStatus(
            record.root,
            FolderId(self.folder),
            record.name,
            state,
            detail,
            *need,
            *totals,
            conflicts,
            problems,
        )

    def _state(self, need: int) -> State:
        if self.held:
            return State.HELD
        alone = not self.links and bool(self._members())
        if self.stock.safe and alone:
            return State.WAITING
        if self.survey.first or self.stock.safe:
            return State.SCANNING
        if need and self.links and not self._stuck():
            return State.SYNCING
        if self.problems.block(needed=need > 0):
            return State.BLOCKED
        return State.WAITING if need or alone else State.UP_TO_DATE

    def _stuck(self) -> bool:
        return bool(self.held) or (self.fetcher.idle and len(self.problems) > 0)

    def _detail(self, need: int) -> str:
        if self.held:
            return self.held
        if not self.links and self._members():
            return "no other device of this folder is connected"
        if self.links and need and all(link.gone for link in self.links):
            return "waiting for a device that has the missing contents"
        return ""
