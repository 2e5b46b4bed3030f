"""Keeps which names conflict copies asked for, and which of them they got."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from p2psync.core.index import Claim
from p2psync.store.encoding import signed, unsigned
from p2psync.store.facts import FactsPart


class ConflictsPart(FactsPart):
    """The part of an index that holds the names of conflict copies."""

    def claims(self, paths: Iterable[bytes]) -> dict[bytes, list[Claim]]:
        """Return who claims these names for conflict copies."""
        if not self._any_claims():
            return {}
        found: dict[bytes, list[Claim]] = {}
        for name, *claim in self._db.all_in(
            "SELECT name, home, author, seq, suffix, placed FROM claims WHERE name IN (?*)",
            paths,
        ):
            found.setdefault(name, []).append(_claim(*claim))
        return found

    def names_of(self, homes: Iterable[bytes]) -> dict[bytes, dict[bytes, list[Claim]]]:
        """Return home -> name -> the claims of that home on that name."""
        if not self._any_claims():
            return {}
        found: dict[bytes, dict[bytes, list[Claim]]] = {}
        for name, *claim in self._db.all_in(
            "SELECT name, home, author, seq, suffix, placed FROM claims WHERE home IN (?*)",
            homes,
        ):
            names = found.setdefault(claim[0], {})
            names.setdefault(name, []).append(_claim(*claim))
        return found

    def conflicts(self, limit: int = 1000) -> list[bytes]:
        """Return names at which the view shows conflict copies, ascending."""
        found = self._db.all(
            "SELECT DISTINCT name FROM claims WHERE placed = 1 ORDER BY name LIMIT ?", (limit,)
        )
        return [name for (name,) in found]

    def _write_claims(self, changed: Mapping[bytes, Mapping[bytes, list[Claim]]]) -> None:
        """Replace all claims of each home given."""
        if changed and self._any_claims():
            self._db.many("DELETE FROM claims WHERE home = ?", [(home,) for home in changed])
        records = [
            (home, name, signed(claim.dot[0]), claim.dot[1], claim.suffix, claim.placed)
            for home, names in changed.items()
            for name, claims in names.items()
            for claim in claims
        ]
        if records:
            self._db.many(
                "INSERT INTO claims (home, name, author, seq, suffix, placed)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                records,
            )

    def _any_claims(self) -> bool:
        """Say whether there are any: mostly not, and thousands of names need not be asked."""
        return self._db.one("SELECT 1 FROM claims LIMIT 1") is not None


def _claim(home: bytes, author: int, seq: int, suffix: int, placed: int) -> Claim:
    return Claim(home, (unsigned(author), seq), suffix, bool(placed))
