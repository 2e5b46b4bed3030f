"""Which directories of a scan stood under another name before, as far as the scan has come.

A directory that is not where its row says and one that is new are the same if device and inode
are: then its children are looked up under the former name too, and what `lstat` says of them
word for word as before is not read again. This only says where to compare: a wrong guess costs
nothing but time. A directory that is met before its former place has been is not recognised.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from p2psync.core import paths
from p2psync.core.entry import Kind
from p2psync.core.index import Row
from p2psync.fs.ground import Ground
from p2psync.fs.scan import DirectoryScan


class Renames:
    """What one scan has found out."""

    def __init__(self, root: Ground) -> None:
        self._root = root
        self._vanished: dict[tuple[int, int], bytes] = {}  # by device and inode
        self._former: dict[bytes, bytes] = {}

    def note(self, part: DirectoryScan, rows: Mapping[bytes, Row]) -> None:
        """Take in what a look into a directory found; rows: of its children, by name."""
        for path in (*part.missing, *part.changed, *part.moved):
            row = rows.get(paths.name(path))
            if row is not None and row.place.kind is Kind.DIRECTORY and row.signature:
                self._vanished[row.signature[:2]] = path
        former = self._former.get(part.directory)
        if former is not None:
            for path, (row, _) in part.moved.items():
                if row.place.kind is Kind.DIRECTORY:
                    self._former[path] = paths.join(former, paths.name(path))

    def former(self, directory: bytes) -> bytes | None:
        """Return the path under which the directory stood before; None: no other is known."""
        if directory in self._former:
            return self._former[directory]
        if not (self._vanished and directory):
            return None
        with suppress(OSError):
            if seen := self._root.look(directory):
                former = self._vanished.get(seen[:2])
                if former is not None and former != directory:
                    self._former[directory] = former
                    return former
        return None
