"""Renaming whole directories instead of what is in them (design: rename-economy).

Synchronous, run in the replica's worker thread. Tried before anything else once a peer has told
all it had to tell; what does not fit is left to the batches of `engine.apply`. Crash-safe as
they are: a death between the rename and the commit leaves the disk ahead of the index.
"""

from __future__ import annotations

from typing import Final

from p2psync.core import paths
from p2psync.core.index import Signature
from p2psync.core.moves import MoveDirectory, directory_moves
from p2psync.core.plan import MakeDirectory
from p2psync.engine.apply import Applied, sync_names
from p2psync.engine.exchange import DraftMaker
from p2psync.fs.ground import Surprised
from p2psync.fs.place import Done, Outcome
from p2psync.fs.root import Root
from p2psync.store.index import Index

TRIES: Final = 8  # each leaves out directories that were found not to be as their rows say

_Step = MakeDirectory | MoveDirectory


class DirectoryMover:
    """Renames the directories of one replica."""

    def __init__(self, index: Index, root: Root, draft: DraftMaker) -> None:
        self._index = index
        self._root = root
        self._draft = draft

    def move_all(self) -> Applied:
        """Rename every directory that is wanted elsewhere, or the largest parts that can be.

        Raises:
            RootTrouble: the disk does not keep names; what was done is ours and needed still.
        """
        applied = Applied()
        unfit: set[bytes] = set()
        for _ in range(TRIES):
            steps = directory_moves(self._index, unfit)
            odd = self._carry_out(steps, applied)
            if not odd:
                break
            for path in odd:
                unfit.update((path, *paths.ancestors(path)))
        return applied

    def _carry_out(self, steps: list[_Step], applied: Applied) -> list[bytes]:
        """Take the steps; return the paths that were not as their rows say."""
        done: list[tuple[_Step, Signature | None]] = []
        left_out: set[bytes] = set()
        odd: list[bytes] = []
        if steps:
            self._index.settle()  # as `Applier.apply`
        for step in steps:
            outcome = None if step.after & left_out else self._act(step)
            if isinstance(outcome, Done):
                done.append((step, outcome.signature))
                continue
            left_out.add(step.path)
            if outcome is not None:
                odd.append(outcome.path)
                if isinstance(step, MoveDirectory):
                    odd.append(step.source)
            if isinstance(outcome, Surprised):
                applied.rescan.append(outcome.path)
        if done:
            self._commit(done)
        for step, _ in done:
            applied.done.append(step.path)
            if isinstance(step, MoveDirectory):
                applied.done.append(step.source)
        return odd

    def _act(self, step: _Step) -> Outcome:
        if isinstance(step, MakeDirectory):
            return self._root.make_directory(step.path)
        rows_of = self._index.children
        return self._root.move_directory(step.source, step.path, step.row, rows_of)

    def _commit(self, done: list[tuple[_Step, Signature | None]]) -> None:
        """Make the names durable, then the rows, in one transaction."""
        names = {step.path for step, _ in done}
        names |= {step.source for step, _ in done if isinstance(step, MoveDirectory)}
        sync_names(self._root, names)
        with self._index.transaction():
            draft = self._draft()
            for step, signature in done:
                if isinstance(step, MakeDirectory):
                    draft.applied(step.path, step.place, signature)
            self._index.write(draft.finish())
            for step, _ in done:
                if isinstance(step, MoveDirectory):
                    self._index.rename_directory(step.source, step.path)
