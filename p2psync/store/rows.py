"""Keeps the rows (what stands on this disk) and the needs (where the view differs from it)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from p2psync.core.entry import Kind
from p2psync.core.index import Place, Row, Want
from p2psync.store.database import Record
from p2psync.store.encoding import (
    below,
    decode_place,
    decode_row,
    encode_place,
    encode_row,
    prefix,
)
from p2psync.store.entries import ascending
from p2psync.store.facts import FactsPart

CHILDREN_FIRST: Final = 2  # a subdirectory and what lies in it: go on behind
CHILDREN_MOST: Final = 512
GENERATION_BITS: Final = 15
FRESH_ROWS: Final = 1_024  # kept in memory, 1 MB: our own applies come back as file events

Position = tuple[int, bytes]
"""A place in the order of needs: how many bits the size has, and the path."""

FIRST: Final[Position] = (-1, b"")


class RowsPart(FactsPart):
    """The part of an index that holds what stands on this disk, and what should."""

    _fresh_rows: dict[bytes, Row]

    # ------------------------------------------------------------------ rows

    def rows(self, paths: Iterable[bytes]) -> dict[bytes, Row]:
        """Return the rows of those of the paths that have one."""
        fresh, found, left = self._fresh_rows, {}, []
        for path in paths:
            row = fresh.get(path)
            if row is None:
                left.append(path)
            else:
                found[path] = row
        return found | self._rows(
            self._db.all_in("SELECT path, body FROM rows WHERE path IN (?*)", left)
        )

    def rows_below(self, path: bytes) -> Iterator[bytes]:
        """Yield the paths strictly below that have rows, ascending; b"" is the root."""
        return ascending(
            self._db,
            "SELECT path FROM rows WHERE path > ? AND path < ? ORDER BY path LIMIT ?",
            path,
        )

    def children(self, directory: bytes) -> dict[bytes, Row]:
        """Return the rows directly inside a directory, by name; b"" is the root.

        Reads the paths in order and, wherever it meets one that lies deeper, goes on behind
        all that share its first name: a subdirectory costs one look whatever its size.
        """
        low, high = below(directory)
        begin, limit = len(low), CHILDREN_FIRST
        children: dict[bytes, Row] = {}
        while True:
            found = self._db.all(
                "SELECT path, body FROM rows WHERE path >= ? AND path < ?"
                " ORDER BY path LIMIT ?",
                (low, high, limit),
            )
            deeper = None
            for path, body in found:
                slash = path.find(b"/", begin)
                if slash >= 0:
                    deeper = path[:slash] + b"0"  # the byte after "/"
                    break
                children[path[begin:]] = self._row(path, body)
            if deeper is not None:
                low, limit = deeper, CHILDREN_FIRST
            elif len(found) < limit:
                return children
            else:
                low, limit = found[-1][0] + b"\0", min(8 * limit, CHILDREN_MOST)

    def rows_with_content(self, content: bytes, limit: int = 8) -> list[tuple[bytes, Row]]:
        """Return some paths whose rows are regular files of this content."""
        found = self._db.all(
            "SELECT path, body FROM rows WHERE content = ?"
            " AND generation IN (SELECT number FROM generations) LIMIT ?",
            (prefix(content), limit),
        )
        rows = self._rows(found)
        return [(path, row) for path, row in rows.items() if row.place.content == content]

    def contents_in_rows(self, contents: Iterable[bytes]) -> set[bytes]:
        """Return those of the contents of which a row is; many are asked for at once."""
        by_prefix = {prefix(content): content for content in contents}
        found = self._db.all_in(
            "SELECT DISTINCT content FROM rows WHERE content IN (?*)"
            " AND generation IN (SELECT number FROM generations)",
            by_prefix,
        )
        likely = {by_prefix[key] for (key,) in found}
        return {content for content in likely if self.rows_with_content(content, 1)}

    def shown_elsewhere(self, home: bytes) -> dict[bytes, Row]:
        """Return the rows at other paths that show conflict copies of this home."""
        return self._rows(self._db.all("SELECT path, body FROM rows WHERE home = ?", (home,)))

    def _rows(self, found: list[Record]) -> dict[bytes, Row]:
        return {path: self._row(path, body) for path, body in found}

    def _row(self, path: bytes, body: bytes) -> Row:
        return self._db.decoded(lambda stored: decode_row(path, stored), body)

    def _write_rows(self, changed: Mapping[bytes, Row | None]) -> None:
        """Take out the old rows and put in the new ones."""
        if not changed:
            return
        paths = sorted(changed)
        totals = self._totals
        for (size,) in self._db.all_in(
            "DELETE FROM rows WHERE path IN (?*) RETURNING size", paths
        ):
            if size is not None:
                totals.files -= 1
                totals.bytes -= size
        generation = totals.files >> GENERATION_BITS
        self._db.run("INSERT OR IGNORE INTO generations (number) VALUES (?)", (generation,))
        records: list[tuple[object, ...]] = []
        if len(self._fresh_rows) + len(changed) > FRESH_ROWS:
            self._fresh_rows.clear()
        for path in paths:
            self._fresh_rows.pop(path, None)
            if (row := changed[path]) is None:
                continue
            self._fresh_rows[path] = row
            place = row.place
            home = None if place.home == path else place.home
            content = size = None
            if place.kind is Kind.FILE:
                content, size = prefix(place.content), place.size
                totals.files += 1
                totals.bytes += size
            records.append((path, home, generation, content, size, encode_row(path, row)))
        self._db.many(
            "INSERT INTO rows (path, home, generation, content, size, body)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            records,
        )

    # ------------------------------------------------------------------ needs

    def needed(self, *, limit: int, after: bytes = b"") -> list[tuple[bytes, Want]]:
        """Return needed paths behind `after`, ascending."""
        found = self._db.all(
            "SELECT path, place FROM needed WHERE path > ? ORDER BY path LIMIT ?",
            (after, limit),
        )
        return [(path, Want(self._place(path, place))) for path, place in found]

    def needed_by_size(
        self, behind: Position, limit: int
    ) -> tuple[list[tuple[bytes, Want]], Position]:
        """Return needed paths behind a position, the smallest first, and the new position.

        Directories, links, removals and empty files come first, then files by size up to a
        factor of two; ascending among these. Begin at `FIRST`.
        """
        found = self._db.all(
            "SELECT magnitude, path, place FROM needed WHERE (magnitude, path) > (?, ?)"
            " ORDER BY magnitude, path LIMIT ?",
            (*behind, limit),
        )
        if found:
            behind = found[-1][0], found[-1][1]
        return [(path, Want(self._place(path, place))) for _, path, place in found], behind

    def still_needed(self, paths: Iterable[bytes]) -> set[bytes]:
        """Return those of the paths that are needed."""
        found = self._db.all_in("SELECT path FROM needed WHERE path IN (?*)", paths)
        return {path for (path,) in found}

    def _place(self, path: bytes, body: bytes | None) -> Place | None:
        if body is None:
            return None
        return self._db.decoded(lambda stored: decode_place(path, stored), body)

    def _write_needed(self, changed: Mapping[bytes, Want | None]) -> None:
        """Take out the old needs and put in the new ones."""
        paths = sorted(changed)
        totals = self._totals
        if totals.needs:
            for (size,) in self._db.all_in(
                "DELETE FROM needed WHERE path IN (?*) RETURNING size", paths
            ):
                totals.needs -= 1
                totals.need_bytes -= size
        records: list[tuple[object, ...]] = []
        for path in paths:
            if (want := changed[path]) is None:
                continue
            place, size, content = want.place, 0, None
            if place is not None and place.kind is Kind.FILE:
                size, content = place.size, prefix(place.content)
            totals.needs += 1
            totals.need_bytes += size
            body = None if place is None else encode_place(path, place)
            records.append((path, size.bit_length(), size, content, body))
        self._db.many(
            "INSERT INTO needed (path, magnitude, size, content, place) VALUES (?, ?, ?, ?, ?)",
            records,
        )
