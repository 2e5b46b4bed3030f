"""Keeps the counters and vectors of a replica: in memory for reading, in one row for ever.

The copies in memory are those of the transaction under way; a rollback reads them anew.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from p2psync.core.index import Facts
from p2psync.core.vector import Vector
from p2psync.errors import StoreError
from p2psync.store.database import Database
from p2psync.store.encoding import signed, unsigned, vector_of

DIGEST_MODULUS: Final = 1 << 256
SUM_MAX: Final = 2**63 - 1
"""What peers announce may add up to more than SQLite holds: then the sum is made anew."""


@dataclass
class Totals:
    """What would otherwise have to be counted; see the table `facts` for the meanings."""

    digest: int
    files: int
    bytes: int
    needs: int
    need_bytes: int
    tombstones: int


class FactsPart:
    """The part of an index that concerns no single path; the base of the other parts."""

    _db: Database
    _facts: Facts
    _totals: Totals
    start: int
    """The random 64-bit id of this start of the agent; peers' cursors name it."""

    def transaction(self, *, durable: bool = True) -> AbstractContextManager[None]:
        """Make what happens inside durable in one step, or, after any exception, undone.

        durable: false leaves that to the next durable one; see `Database.transaction`.
        """
        return self._db.transaction(durable=durable)

    @property
    def unsettled(self) -> bool:
        """True while a power cut could undo the latest transactions; `settle` ends that."""
        return self._db.unsettled

    def settle(self) -> None:
        """Make everything durable that was written: before anybody is told of it."""
        self._db.settle()

    def facts(self) -> Facts:
        """Return the counters and vectors; the author is 0 before its first change."""
        return self._facts

    def totals(self) -> tuple[int, int]:
        """Return how many regular files the rows say stand on this disk, and their bytes."""
        return self._totals.files, self._totals.bytes

    def needed_totals(self) -> tuple[int, int]:
        """Return how many paths are needed, and the bytes of the files wanted there."""
        return self._totals.needs, self._totals.need_bytes

    def digest(self) -> bytes:
        """Return 32 bytes that are equal when all living entries are, and hardly ever else.

        Tombstones do not count: one replica may have collected what another has yet to keep.
        """
        return self._totals.digest.to_bytes(32, "big")

    def get(self, key: str) -> bytes | None:
        """Return a small fact kept with `put`, or None."""
        found = self._db.one("SELECT value FROM notes WHERE key = ?", (key,))
        return found[0] if found else None

    def put(self, key: str, value: bytes) -> None:
        """Keep a small fact of the replica, in place of an earlier one of that key."""
        self._db.run(
            "INSERT INTO notes (key, value) VALUES (?, ?)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, value),
        )

    # ------------------------------------------------------------------ starts

    def arrival_of(self, start: int, arrival: int) -> int:
        """Return how far a peer's cursor really reaches in what this index holds now.

        A cursor made under a start we do not know (the database was lost, restored or
        copied) says nothing; one beyond the end of its start is cut down to it, because what
        came after was rolled back.
        """
        known = self._db.one("SELECT number FROM starts WHERE start = ?", (signed(start),))
        if known is None:
            return 0
        following = self._db.one(
            "SELECT arrival FROM starts WHERE number > ? ORDER BY number LIMIT 1", known
        )
        end = following[0] if following else self._facts.arrival
        return max(0, min(arrival, end))

    def _record_start(self, start: int) -> None:
        """Begin a start: the author of the previous one is never used again."""
        with self.transaction():
            if self._db.one("SELECT 1 FROM starts WHERE start = ?", (signed(start),)):
                raise StoreError("the id of a start is random: this one was used before")
            self._db.run(
                "INSERT INTO starts (start, arrival) SELECT ?, arrival FROM facts",
                (signed(start),),
            )
            self._db.run("UPDATE facts SET author = 0, seq = 0")
        self.start = start

    # ------------------------------------------------------------------ reading and writing

    def _load_facts(self) -> None:
        """Read the copies in memory anew."""
        record = self._db.one(
            "SELECT author, seq, arrival, digest, files, bytes, needs, need_bytes, tombstones"
            " FROM facts"
        )
        if record is None:
            raise self._db.damaged("the row of facts is missing")
        author, seq, arrival, digest, *totals = record
        known = vector_of(self._db.all("SELECT author, seq FROM known"))
        collected = vector_of(self._db.all("SELECT author, seq FROM collected"))
        self._facts = Facts(unsigned(author), seq, arrival, known, collected)
        self._totals = Totals(int.from_bytes(digest, "big"), *totals)
        if self._totals.need_bytes == SUM_MAX:
            sizes = self._db.all("SELECT size FROM needed")
            self._totals.need_bytes = sum(size for (size,) in sizes)

    def _write_facts(self, facts: Facts) -> None:
        """Write what differs from the copies in memory, and the totals."""
        old = self._facts
        self._write_vector(
            "INSERT INTO known VALUES (?, ?)"
            " ON CONFLICT (author) DO UPDATE SET seq = excluded.seq",
            old.known,
            facts.known,
        )
        self._write_vector(
            "INSERT INTO collected VALUES (?, ?)"
            " ON CONFLICT (author) DO UPDATE SET seq = excluded.seq",
            old.collected,
            facts.collected,
        )
        totals = self._totals
        self._db.run(
            "UPDATE facts SET author = ?, seq = ?, arrival = ?, digest = ?, files = ?,"
            " bytes = ?, needs = ?, need_bytes = ?, tombstones = ?",
            (
                signed(facts.author),
                facts.seq,
                facts.arrival,
                self.digest(),
                totals.files,
                totals.bytes,
                totals.needs,
                min(totals.need_bytes, SUM_MAX),
                totals.tombstones,
            ),
        )
        self._facts = facts

    def _write_vector(self, sql: str, old: Vector, new: Vector) -> None:
        if new is old:
            return
        if len(new) < len(old):
            raise AssertionError("knowledge and the collected vector only grow")
        changed = [
            (signed(author), seq) for author, seq in new.items() if old.get(author) != seq
        ]
        if changed:
            self._db.many(sql, changed)
