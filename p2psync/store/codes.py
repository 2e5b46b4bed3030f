"""Keeps the pairing codes put up here; a guess is counted before it is compared."""

from __future__ import annotations

from p2psync.store.database import Database


class CodesPart:
    """The part of the agent's home that must not forget a guess or an answer."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def new_code(self, code_id: bytes, expires_ns: int) -> None:
        """Put up a code; the id tells codes apart and says nothing about the words.

        Raises:
            StoreError: there is a code of this id.
        """
        self._db.run(
            "INSERT INTO codes (code_id, expires_ns) VALUES (?, ?)", (code_id, expires_ns)
        )

    def count_guess(self, code_id: bytes) -> int:
        """Count one guess, durably before this returns; return how many with it.

        Raises:
            LookupError: the code is burned, ended or was never put up: no guess is due.
        """
        found = self._db.one(
            "UPDATE codes SET guesses = guesses + 1 WHERE code_id = ? AND burned = 0"
            " RETURNING guesses",
            (code_id,),
        )
        if found is None:
            raise LookupError("no such code is open")
        return int(found[0])

    def burn_code(self, code_id: bytes) -> None:
        """Void a code for good, also over a restart: it takes no guess any more."""
        self._db.run("UPDATE codes SET burned = 1 WHERE code_id = ?", (code_id,))

    def end_code(self, code_id: bytes) -> None:
        """Drop a code: used, withdrawn, or its time is over."""
        self._db.run("DELETE FROM codes WHERE code_id = ?", (code_id,))

    def end_expired(self, now_ns: int) -> None:
        """Drop every code whose time was over at `now_ns`."""
        self._db.run("DELETE FROM codes WHERE expires_ns <= ?", (now_ns,))
