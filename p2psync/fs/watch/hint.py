"""Where something may have changed: what a watcher says and a scan is asked.

A hint is never more than a hint. Hints are joined when nobody takes them at once, and get
coarser instead of longer: very many paths become their directories, very many directories
everything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from p2psync.core import paths

HINTED_PATHS: Final = 20_000  # 3 MB
HINTED_DIRECTORIES: Final = 10_000


@dataclass(slots=True)
class Hint:
    """Where something may have changed; all paths are relative to the root (b"").

    paths: look at exactly these; of a directory that is gone, at what was below. directories:
    look at their children, and whole at those of them that are new. trees: these and all
    below. everything: the whole folder; then nothing else is named. rules: the ignore file
    was touched.
    """

    paths: set[bytes] = field(default_factory=set)
    directories: set[bytes] = field(default_factory=set)
    trees: set[bytes] = field(default_factory=set)
    everything: bool = False
    rules: bool = False

    def __bool__(self) -> bool:
        return bool(self.paths or self.directories or self.trees) or (
            self.everything or self.rules
        )

    def join(self, other: Hint) -> None:
        """Say here what both say, bounded."""
        self.paths |= other.paths
        self.directories |= other.directories
        self.trees |= other.trees
        self.everything |= other.everything
        self.rules |= other.rules
        if len(self.paths) > HINTED_PATHS:
            self.directories.update(map(paths.parent, self.paths))
            self.paths = set()
        if self.everything or len(self.directories) + len(self.trees) > HINTED_DIRECTORIES:
            self.everything = True
            self.paths, self.directories, self.trees = set(), set(), set()

    def covers(self, path: bytes) -> bool:
        """Say whether who follows the hint looks at this path."""
        return self.everything or path in self.paths or self._around(path)

    def narrowed(self) -> Hint:
        """Return the same, naming nothing twice."""
        if not (self.directories or self.trees):
            return self
        trees = {tree for tree in self.trees if self.trees.isdisjoint(paths.ancestors(tree))}
        whole = Hint(directories=self.directories, trees=trees)
        return Hint(
            {path for path in self.paths if not whole.covers(path)},
            {path for path in self.directories if not whole.inside(path)},
            trees,
            self.everything,
            self.rules,
        )

    def inside(self, path: bytes) -> bool:
        """Say whether the path is one of the trees or below one."""
        return bool(self.trees) and (
            path in self.trees or not self.trees.isdisjoint(paths.ancestors(path))
        )

    def _around(self, path: bytes) -> bool:
        return paths.parent(path) in self.directories or self.inside(path)
