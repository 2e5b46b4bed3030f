"""What stands in the way of which path now, and when it does no longer (isolation).

A problem that a scan saw lasts until a scan of its directory does not see it; one that was met
while applying lasts until the path is as wanted, or is not needed any more.
"""

from __future__ import annotations

from collections.abc import Collection

from p2psync.core.problem import Problem
from p2psync.engine.apply import Applied
from p2psync.engine.scanning import Found, Over


class Problems:
    """The problems of one replica, by path."""

    def __init__(self) -> None:
        self._seen: dict[bytes, Problem] = {}
        self._met: dict[bytes, Problem] = {}

    def __len__(self) -> int:
        return len(self._seen.keys() | self._met.keys())

    def all(self) -> tuple[Problem, ...]:
        """Return one problem of each path, ascending."""
        return tuple(problem for _, problem in sorted({**self._met, **self._seen}.items()))

    def block(self, *, needed: bool) -> bool:
        """Say whether any keeps the replica from being up to date.

        needed: some path is not as wanted; then even a fifo may be what stands in its way.
        """
        return any(needed or problem.blocks for problem in self.all())

    def met(self) -> list[bytes]:
        """Return the paths of those met while applying."""
        return list(self._met)

    def note(self, found: Found) -> None:
        """Keep what a unit of scanning found out."""
        for path, problem in found.problems.items():
            if problem is None:
                self._seen.pop(path, None)
                self._met.pop(path, None)
            else:
                self._seen[path] = problem
        if found.over is not None:
            self._end(found.over)

    def _end(self, over: Over) -> None:
        for path in [path for path in self._seen if path not in over.reported]:
            if over.looked_at(path):
                del self._seen[path]

    def took(self, applied: Applied) -> None:
        """Keep what a batch came to."""
        for problem in applied.problems:
            self._met[problem.path] = problem
        for path in applied.done:
            self._seen.pop(path, None)
            self._met.pop(path, None)

    def keep(self, needed: Collection[bytes]) -> bool:
        """Forget what was met at paths that are not needed; say whether there was any."""
        gone = [path for path in self._met if path not in needed]
        for path in gone:
            del self._met[path]
        return bool(gone)
