"""What was fetched, on its way to be seen: staged at once, applied when the worker is free.

Contents are verified and written to staging in the pool, while the worker is busy with what
came before; what has come meanwhile is made durable in one go and applied as one batch (group
commit). On a fast line a batch is hundreds of files, on a slow one it is what just came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from p2psync.core.index import Want
from p2psync.core.problem import Problem
from p2psync.engine.apply import Applied
from p2psync.engine.owner import Owner
from p2psync.errors import IntegrityError, RemoteProtocolError
from p2psync.fs.ground import problem_of
from p2psync.fs.root import Root
from p2psync.fs.staging import Prepared

BATCH_FILES = 512  # applied in one unit of the worker: some 50 ms
WAITING_FILES = 4 * BATCH_FILES  # staged and not applied; who stages more has to wait
FEW_FILES = 16  # of a group that overtakes the others: somebody looks at it

Wants = Mapping[bytes, Mapping[bytes, Want]]
"""By content, by path."""


@dataclass
class Staged:
    """Contents of one answer in staging.

    wants: all paths they are for, and more to be applied with them. problems: the paths that
    could not be staged.
    """

    contents: set[bytes] = field(default_factory=set)
    wants: dict[bytes, Want] = field(default_factory=dict)
    prepared: dict[bytes, Prepared] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def join(self, other: Staged) -> None:
        """Take another one in: both are applied together."""
        self.contents |= other.contents
        self.wants |= other.wants
        self.prepared |= other.prepared
        self.problems += other.problems


class Stager:
    """Stages and applies small contents for one replica.

    Args:
        owner: the replica.
        done: told of each batch that was applied, and what came of it.
    """

    def __init__(self, owner: Owner, done: Callable[[Staged, Applied], None]) -> None:
        self._owner = owner
        self._done = done
        self._waiting: list[Staged] = []
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._writing = asyncio.Semaphore(1)  # threads of one interpreter wait for each other

    async def stage(self, files: Iterable[tuple[bytes, bytes]], wants: Wants) -> Staged:
        """Verify contents and write them to staging, once for each path that wants them.

        Contents that no path wants are left out; nothing is staged while the replica is held.

        Raises:
            RemoteProtocolError: bytes of another file than asked for.
        """
        if not self._owner.may_apply:
            return Staged()
        async with self._writing:
            return await asyncio.to_thread(_stage, self._owner.stock.root, files, wants)

    async def apply_soon(self, staged: Staged) -> None:
        """Queue what was staged; wait while too much is waiting."""
        if len(staged.wants) <= FEW_FILES:
            self._waiting.insert(0, staged)
        else:
            self._waiting.append(staged)
        self._news.set()
        while sum(len(group.wants) for group in self._waiting) > WAITING_FILES:
            self._room.clear()
            await self._room.wait()

    async def drop(self, staged: Staged) -> None:
        """Remove what was staged and is not to be applied; a root that is closed has none."""
        root = getattr(self._owner.stock, "root", None)
        if root is not None and staged.prepared:
            await asyncio.to_thread(_drop, root, staged)

    async def run(self) -> None:
        """Apply for ever what has been staged."""
        while True:
            await self._news.wait()
            batch = self._next_batch()
            self._done(batch, await self._apply(batch))
            if not self._waiting:
                self._news.clear()
            self._room.set()

    def _next_batch(self) -> Staged:
        batch = self._waiting.pop(0)
        while self._waiting and len(batch.wants) + len(self._waiting[0].wants) <= BATCH_FILES:
            batch.join(self._waiting.pop(0))
        return batch

    async def _apply(self, batch: Staged) -> Applied:
        if not self._owner.may_apply:
            await self.drop(batch)
            return Applied()
        try:
            await asyncio.to_thread(_sync, self._owner.stock.root, batch.prepared)
        except OSError as error:  # nobody can say which of them are not durable
            await self.drop(batch)
            return Applied(problems=[problem_of(path, error) for path in batch.wants])
        applied = await self._owner.apply(batch.wants, batch.prepared, {})
        applied.problems += batch.problems
        return applied


def _stage(root: Root, files: Iterable[tuple[bytes, bytes]], wants: Wants) -> Staged:
    staged = Staged()
    with root.in_use():
        for content, data in files:
            if content in staged.contents or content not in wants:
                continue
            staged.contents.add(content)
            for path, want in wants[content].items():
                assert want.place is not None  # a content is wanted there
                try:
                    prepared = root.prepare_bytes(content, data, want.place)
                except IntegrityError as error:
                    _drop(root, staged)
                    raise RemoteProtocolError("bytes of another file than asked for") from error
                staged.wants[path] = want
                if isinstance(prepared, Problem):
                    staged.problems.append(prepared._replace(path=path))
                else:
                    staged.prepared[path] = prepared
    return staged


def _sync(root: Root, prepared: Mapping[bytes, Prepared]) -> None:
    with root.in_use():
        if len(prepared) == 1:
            root.sync_file(next(iter(prepared.values())))
        elif prepared:
            root.sync()


def _drop(root: Root, staged: Staged) -> None:
    with suppress(OSError), root.in_use():
        for prepared in staged.prepared.values():
            root.discard(prepared)
