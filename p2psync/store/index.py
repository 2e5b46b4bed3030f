"""The index of one replica: everything the program must remember, in one SQLite database.

Promises: what `write` or a `transaction` has returned from is durable; a failed one has not
happened; every answer is of one and the same moment (one connection, used by one thread at a
time). The parts split it by question; each owns its tables (`schema/index`).

Nothing here is worth a user's byte: a damaged index is put aside and built anew from the disk
and the peers, in safe mode (design 4.9).
"""

from __future__ import annotations

import pathlib
from typing import Final

from p2psync.core.index import Changes
from p2psync.errors import CorruptIndexError
from p2psync.store.conflicts import ConflictsPart
from p2psync.store.contents import ContentsPart
from p2psync.store.database import Database
from p2psync.store.entries import EntriesPart, Page
from p2psync.store.moves import MovesPart
from p2psync.store.peers import PeersPart

NAME_KEY: Final = "file name"

__all__ = ["CorruptIndexError", "Index", "Page"]


class Index(EntriesPart, MovesPart, ConflictsPart, PeersPart, ContentsPart):
    """One replica's database; implements `core.index.Reader`."""

    def __init__(self, database: Database, start: int) -> None:
        self._db = database
        self._recognise()
        self._record_start(start)
        database.run("DELETE FROM listing")  # a listing ends with its session
        self._reload()
        database.on_rollback(self._reload)

    @classmethod
    def open(cls, path: pathlib.Path, *, start: int) -> Index:
        """Open the index, or create it; a new start of the agent begins.

        path: its name belongs to one replica; the index remembers it.
        start: a random 64-bit id of this start, never used before.

        Raises:
            CorruptIndexError: it was damaged and has been put aside; open again: fresh.
            StoreError: it cannot be opened, or a newer version of the program made it.
        """
        database = Database(path, "index")
        try:
            return cls(database, start)
        except BaseException:
            database.close()
            raise

    @property
    def fresh(self) -> bool:
        """Whether the database was just created: the replica is in safe mode."""
        return self._db.fresh

    @property
    def written(self) -> int:
        """Return a number that grows with whatever is written while the index is open."""
        return self._db.written

    def close(self) -> None:
        """Close the database; nothing of the index may be used afterwards."""
        self._db.close()

    def shrink(self) -> None:
        """Let go of what is only kept to be fast; for quiet moments."""
        self._db.shrink()

    def write(self, changes: Changes) -> None:
        """Write what one step of the rules changed, in one transaction.

        Durable when this returns, but inside a transaction that is not.

        Raises:
            StoreError: it could not be written; nothing of it was.
        """
        with self.transaction():
            self._write_entries(changes.entries)
            self._write_rows(changes.rows)
            self._write_claims(changes.claims)
            self._write_needed(changes.needed)
            self._write_facts(changes.facts)

    def _recognise(self) -> None:
        """Refuse the index of another replica: its file, or its log beside our file.

        SQLite plays back any log that lies there; a log can hold a whole database.
        """
        name = self._db.path.name.encode()
        kept = self.get(NAME_KEY)
        if kept is None:
            self.put(NAME_KEY, name)
        elif kept != name:
            self._db.reject("it is the index of another replica")

    def _reload(self) -> None:
        self._told = {}
        self._fresh_rows = {}
        self._load_facts()
