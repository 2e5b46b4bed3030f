"""Renaming a directory with all that stands in it: one effect, whatever it holds.

Promises those of `fs.place`: nothing moves that is not as its row says. All of it is looked at
before, word for word what `lstat` says (48,000 files in 0.3 s); what somebody does in it after
that look comes along, and is found under the new name by the next scan, like any edit.
"""

from __future__ import annotations

from p2psync.core import paths
from p2psync.core.diff import same
from p2psync.core.ignore import NOTHING
from p2psync.core.index import Row
from p2psync.fs.ground import At, Surprised
from p2psync.fs.place import Done, Outcome, Placing
from p2psync.fs.scan import DirectoryScan, RowsOf, scan_tree


class Relocating(Placing):
    """A root in which directories can be renamed."""

    def move_directory(self, source: bytes, path: bytes, row: Row, rows_of: RowsOf) -> Outcome:
        """Rename the directory that `row` says stands at `source` to where nothing stands.

        rows_of: the rows of a directory's children. All below has to be as they say, and
        nothing else may be there: what is ignored is not moved along.

        Returns:
            Done; Surprised, with the path that is not as its row says; a Problem.
        """
        return self._acting(
            source,
            lambda origin: self._acting(
                path, lambda at: self._move_directory(origin, at, row, rows_of)
            ),
        )

    def _move_directory(self, origin: At, at: At, row: Row, rows_of: RowsOf) -> Outcome:
        before = origin.look()
        if before is None or not same(before, row):
            return origin.surprise()
        for part in scan_tree(self, origin.path, rows_of, NOTHING):
            odd = self._odd(part, rows_of)
            if odd is not None:
                return Surprised(odd, None)
        try:
            self.rename_new(origin.fd, origin.name, at.fd, at.name)
        except FileExistsError:
            return at.surprise()
        outcome = self._check_moved(origin, at, row, before)
        return Done(before) if isinstance(outcome, Done) else outcome

    def _odd(self, part: DirectoryScan, rows_of: RowsOf) -> bytes | None:
        """Return a path that is not as its row says; None: there is none in this directory."""
        if part.problems:
            return part.problems[0].path
        if part.missing:
            return part.missing[0]
        rows = rows_of(part.directory) if part.changed else {}
        for path in part.changed:
            row = rows.get(paths.name(path))
            if row is None or row.signature is not None or not self._shows(path, row):
                return path
        return None

    def _shows(self, path: bytes, row: Row) -> bool:
        """Look at the content where the row has no signature that could tell."""
        with self.at(path) as at:
            return self._as_row(at, row) is not None
