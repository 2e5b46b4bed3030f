"""Keeps the entries in the order of their arrival, and their digest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from blake3 import blake3

from p2psync.core.entry import Entry
from p2psync.core.reconcile import decode, encode
from p2psync.core.vector import Vector, includes
from p2psync.store.database import Database
from p2psync.store.encoding import below, decode_context
from p2psync.store.facts import DIGEST_MODULUS, FactsPart

FIRST_LOOK: Final = 4  # most callers of live_below and rows_below stop at the first answer
LOOK: Final = 1024
PAGE_LOOK: Final = 256
PAGE_LOOKS: Final = 64  # entries looked at for one page: so many times PAGE_LOOK


class Page(NamedTuple):
    """Entries to send. items: (arrival, path, body), ascending by arrival.

    end: everything up to this arrival is in the items or was left out on purpose. more: later
    entries exist.
    """

    items: list[tuple[int, bytes, bytes]]
    end: int
    more: bool


class EntriesPart(FactsPart):
    """The part of an index that holds what is known of each path."""

    def entries(self, paths: Iterable[bytes]) -> dict[bytes, Entry]:
        """Return the entries of those of the paths that have one."""
        wanted = list(paths)
        found = self._db.all_in(
            "SELECT path, body FROM entries WHERE live = 1 AND path IN (?*)", wanted
        )
        if self._totals.tombstones and len(found) < len(wanted):
            found += self._db.all_in(
                "SELECT path, body FROM entries WHERE live = 0 AND path IN (?*)", wanted
            )
        return {path: self._db.decoded(decode, body) for path, body in found}

    def live_below(self, path: bytes) -> Iterator[bytes]:
        """Yield the paths strictly below that have live values, ascending; b"" is the root."""
        return ascending(
            self._db,
            "SELECT path FROM entries WHERE live = 1 AND path > ? AND path < ?"
            " ORDER BY path LIMIT ?",
            path,
        )

    def tombstones(self, *, limit: int, after: bytes = b"") -> list[bytes]:
        """Return paths without live values and without a row, ascending."""
        found = self._db.all(
            "SELECT path FROM entries WHERE live = 0 AND path > ?"
            " AND NOT EXISTS (SELECT 1 FROM rows WHERE rows.path = entries.path)"
            " ORDER BY path LIMIT ?",
            (after, limit),
        )
        return [path for (path,) in found]

    def paths(self, after: bytes = b"", limit: int = 1000) -> list[bytes]:
        """Return paths that have an entry, a row, a claim on them or a need, ascending."""
        found = self._db.all(
            "SELECT path FROM entries WHERE live = 1 AND path > :after"
            " UNION SELECT path FROM entries WHERE live = 0 AND path > :after"
            " UNION SELECT path FROM rows WHERE path > :after"
            " UNION SELECT name FROM claims WHERE name > :after"
            " UNION SELECT path FROM needed WHERE path > :after"
            " ORDER BY path LIMIT :limit",
            {"after": after, "limit": limit},
        )
        return [path for (path,) in found]

    def page(
        self, after: int, *, known: Vector | None, limit_items: int, limit_bytes: int
    ) -> Page:
        """Return the entries that arrived later than `after`, for one peer.

        known: leave out entries whose whole context it includes; None: leave out nothing.
        limit_bytes: of paths and bodies; one entry is returned even if it exceeds them.
        """
        items: list[tuple[int, bytes, bytes]] = []
        size, end = 0, after
        for _ in range(PAGE_LOOKS):
            look = self._db.all(
                "SELECT arrival, path, body FROM entries WHERE arrival > ?"
                " ORDER BY arrival LIMIT ?",
                (end, PAGE_LOOK),
            )
            for arrival, path, body in look:
                if known is None or not self._is_known(known, body):
                    size += len(path) + len(body)
                    if len(items) == limit_items or (items and size > limit_bytes):
                        return Page(items, end, True)
                    items.append((arrival, path, body))
                end = arrival
            if len(look) < PAGE_LOOK:
                return Page(items, max(end, self._facts.arrival), False)
        return Page(items, end, True)

    def _is_known(self, known: Vector, body: bytes) -> bool:
        return includes(known, self._db.decoded(decode_context, body).ctx)

    def _write_entries(self, changed: Mapping[bytes, tuple[int, Entry] | None]) -> None:
        """Take out the old entries and put in the new ones."""
        paths = sorted(changed)
        totals = self._totals
        digest = totals.digest
        for path, body in self._db.all_in(
            "DELETE FROM entries WHERE live = 1 AND path IN (?*) RETURNING path, body", paths
        ):
            digest -= _term(path, body)
        if totals.tombstones:
            totals.tombstones -= len(
                self._db.all_in(
                    "DELETE FROM entries WHERE live = 0 AND path IN (?*) RETURNING path",
                    paths,
                )
            )
        records = []
        for path in paths:
            if (new := changed[path]) is None:
                continue
            arrival, entry = new
            body = encode(entry)
            if entry.live:
                digest += _term(path, body)
            totals.tombstones += not entry.live
            records.append((arrival, path, 1 if entry.live else 0, body))
        records.sort()  # arrivals ascending: the table only grows at its end
        self._db.many(
            "INSERT INTO entries (arrival, path, live, body) VALUES (?, ?, ?, ?)", records
        )
        totals.digest = digest % DIGEST_MODULUS


def ascending(database: Database, sql: str, path: bytes) -> Iterator[bytes]:
    """Yield paths strictly below one, ascending, in looks of growing size.

    sql: selects paths above its first parameter and below its second, its third the limit.
    Between two looks the caller may write; what changes behind the last path is not seen.
    """
    low, high = below(path)
    limit = FIRST_LOOK
    while True:
        found = database.all(sql, (low, high, limit))
        for (low,) in found:
            yield low
        if len(found) < limit:
            return
        limit = LOOK


def _term(path: bytes, body: bytes) -> int:
    """Return what one entry adds to the digest."""
    return int.from_bytes(blake3(len(path).to_bytes(4, "big") + path + body).digest(), "big")
