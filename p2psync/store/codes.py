"""Keeps the pairing codes put up here; a guess is counted before it is compared."""

from __future__ import annotations

from p2psync.errors import StoreError
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
        """Drop a code and its answer: withdrawn, or its time is over."""
        with self._db.transaction():
            self._db.run("DELETE FROM answers WHERE code_id = ?", (code_id,))
            self._db.run("DELETE FROM codes WHERE code_id = ?", (code_id,))

    def end_expired(self, now_ns: int) -> None:
        """Drop every code whose time was over at `now_ns`."""
        with self._db.transaction():
            for (code_id,) in self._db.all(
                "SELECT code_id FROM codes WHERE expires_ns <= ?", (now_ns,)
            ):
                self.end_code(code_id)

    def store_answer(self, code_id: bytes, third_hash: bytes, fourth: bytes) -> None:
        """Keep the answer the code was used up with: a code works once.

        Raises:
            StoreError: the code is not open, or was used up by another message 3.
        """
        with self._db.transaction():
            self._db.run(
                "INSERT INTO answers (code_id, third_hash, fourth)"
                " SELECT code_id, ?, ? FROM codes WHERE code_id = ? AND burned = 0"
                " ON CONFLICT (code_id) DO NOTHING",
                (third_hash, fourth, code_id),
            )
            if self.answer(code_id, third_hash) != fourth:
                raise StoreError("the code is used up")

    def answer(self, code_id: bytes, third_hash: bytes) -> bytes | None:
        """Return the answer that was given to this very message 3, or None."""
        found = self._db.one(
            "SELECT fourth FROM answers WHERE code_id = ? AND third_hash = ?",
            (code_id, third_hash),
        )
        return found[0] if found else None
