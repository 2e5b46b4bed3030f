"""Keeps what a whole directory is to the rows and needs: reads it, and gives it another name.

What lies below a directory may be all there is: it is read and written a thousand paths at a
time, without an object for each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from p2psync.core import paths
from p2psync.core.entry import Kind
from p2psync.core.index import Row, Want
from p2psync.errors import StoreError
from p2psync.store.database import Record
from p2psync.store.encoding import below, shown
from p2psync.store.rows import RowsPart

FIRST_LOOK: Final = 64
LOOK: Final = 1_024


class MovesPart(RowsPart):
    """The part of an index that whole directories are asked of; see `core.moves.Reader`."""

    def wants(self, wanted: Collection[bytes]) -> dict[bytes, Want]:
        """Return those of the paths that are needed, with what is wanted there."""
        found = self._db.all_in("SELECT path, place FROM needed WHERE path IN (?*)", wanted)
        return {path: Want(self._place(path, place)) for path, place in found}

    def rows_in(self, directory: bytes) -> Iterator[tuple[bytes, Row]]:
        """Yield what stands strictly below a directory, ascending by path."""
        sql = "SELECT path, body FROM rows WHERE path > ? AND path < ? ORDER BY path LIMIT ?"
        for path, body in self._in(sql, directory):
            yield path, self._row(path, body)

    def wants_in(self, directory: bytes) -> Iterator[tuple[bytes, Want]]:
        """Yield what is needed strictly below a directory, ascending by path."""
        sql = "SELECT path, place FROM needed WHERE path > ? AND path < ? ORDER BY path LIMIT ?"
        for path, place in self._in(sql, directory):
            yield path, Want(self._place(path, place))

    def _in(self, sql: str, directory: bytes) -> Iterator[Record]:
        low, high = below(directory)
        limit = FIRST_LOOK
        while True:
            found = self._db.all(sql, (low, high, limit))
            yield from found
            if len(found) < limit:
                return
            low, limit = found[-1][0], LOOK

    def directories_going(self) -> Iterator[bytes]:
        """Yield where a directory stands and nothing is wanted, ascending; none in another."""
        sql = (
            "SELECT n.path, r.body FROM needed AS n JOIN rows AS r ON r.path = n.path"
            " WHERE n.magnitude = 0 AND n.path > ? AND n.place IS NULL AND r.size IS NULL"
            " ORDER BY n.path LIMIT ?"
        )
        going: set[bytes] = set()
        after = b""
        while found := self._db.all(sql, (after, FIRST_LOOK)):
            for path, body in found:
                after = path
                if around := going.intersection(paths.ancestors(path)):
                    after = around.pop() + b"0"  # the byte after "/": behind all in it
                    break
                if self._row(path, body).place.kind is Kind.DIRECTORY:
                    going.add(path)
                    yield path

    def directories_coming(self) -> Iterator[bytes]:
        """Yield where a directory is wanted and nothing stands, ascending."""
        sql = (
            "SELECT path, place FROM needed WHERE magnitude = 0 AND path > ?"
            " AND place IS NOT NULL"
            " AND NOT EXISTS (SELECT 1 FROM rows WHERE rows.path = needed.path)"
            " ORDER BY path LIMIT ?"
        )
        after = b""
        while found := self._db.all(sql, (after, LOOK)):
            for path, body in found:
                place = self._place(path, body)
                if place is not None and place.kind is Kind.DIRECTORY:
                    yield path
            after = found[-1][0]

    def rename_directory(self, source: bytes, path: bytes) -> None:
        """Believe that a directory stands at a path now, and all below shows what is wanted.

        It fits (`core.moves`): every row at the source and below has its need at the path.

        Raises:
            StoreError: it does not fit, or could not be written; nothing of it was.
        """
        low, high = below(source)
        self._fresh_rows.clear()  # the rows change without being read
        with self.transaction():
            self._move_rows(source, path, source, source + b"\0")
            self._move_rows(source, path, low, high)
            if self._db.one(
                "SELECT 1 FROM rows WHERE path > ? AND path < ? LIMIT 1", (low, high)
            ):
                raise StoreError("a directory was renamed that does not fit its place")
            for start in (source, path):
                self._forget_needs(start, start + b"\0")
                self._forget_needs(*below(start))
            self._write_facts(self._facts)

    def _move_rows(self, source: bytes, path: bytes, low: bytes, high: bytes) -> None:
        """Let the rows from `low` on and before `high` show what is wanted."""
        while found := self._db.all(
            "SELECT r.path, r.id, r.body, n.path, n.place FROM rows AS r CROSS JOIN needed AS n"
            " ON n.path = CAST(? || substr(r.path, ?) AS BLOB)"
            " WHERE r.path >= ? AND r.path < ? AND n.place IS NOT NULL"
            " ORDER BY r.path LIMIT ?",
            (path, len(source) + 1, low, high, LOOK),
        ):
            self._db.many(
                "UPDATE rows SET path = ?, home = NULL, body = ? WHERE id = ?",
                [(now, shown(body, place), number) for _, number, body, now, place in found],
            )
            low = found[-1][0]

    def _forget_needs(self, low: bytes, high: bytes) -> None:
        """Let go of needs, from `low` on and before `high`, where the disk is as wanted.

        Nothing is wanted and no row left, or something is, and a row there now.
        """
        met = (
            " FROM needed WHERE path >= ? AND path < ? AND (place IS NOT NULL)"
            " = EXISTS (SELECT 1 FROM rows WHERE rows.path = needed.path)"
        )
        count = self._db.one("SELECT count(*), coalesce(sum(size), 0)" + met, (low, high))
        assert count is not None  # sums have an answer
        self._db.run("DELETE" + met, (low, high))
        self._totals.needs -= count[0]
        self._totals.need_bytes -= count[1]
