"""An index in dicts: a `core.index.Reader` that takes `Changes`, for tests and explorations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from p2psync.core.entry import Entry, Kind
from p2psync.core.index import Changes, Claim, Facts, Row, Want
from p2psync.core.paths import ancestors


class DictIndex:
    """What the SQLite index keeps, in dicts; `write` replaces one transaction."""

    def __init__(self) -> None:
        self.now = Facts(0, 0, 0, {}, {})
        self.all_entries: dict[bytes, Entry] = {}
        self.arrived: dict[bytes, int] = {}
        self.all_rows: dict[bytes, Row] = {}
        self.all_claims: dict[bytes, dict[bytes, list[Claim]]] = {}  # home -> name -> claims
        self.needed: dict[bytes, Want] = {}
        self.reads = 0

    def copy(self) -> DictIndex:
        other = DictIndex()
        other.now = self.now
        other.all_entries = dict(self.all_entries)
        other.arrived = dict(self.arrived)
        other.all_rows = dict(self.all_rows)
        other.all_claims = dict(self.all_claims)
        other.needed = dict(self.needed)
        return other

    def write(self, changes: Changes) -> None:
        self.now = changes.facts
        for path, stored in changes.entries.items():
            self.all_entries.pop(path, None)
            self.arrived.pop(path, None)
            if stored is not None:
                self.arrived[path], self.all_entries[path] = stored
        for path, row in changes.rows.items():
            self.all_rows.pop(path, None)
            if row is not None:
                self.all_rows[path] = row
        for path, want in changes.needed.items():
            self.needed.pop(path, None)
            if want is not None:
                self.needed[path] = want
        for home, names in changes.claims.items():
            self.all_claims.pop(home, None)
            if names:
                self.all_claims[home] = names

    # -- core.index.Reader

    def facts(self) -> Facts:
        return self.now

    def entries(self, paths: Iterable[bytes]) -> dict[bytes, Entry]:
        self.reads += 1
        return {path: self.all_entries[path] for path in paths if path in self.all_entries}

    def rows(self, paths: Iterable[bytes]) -> dict[bytes, Row]:
        self.reads += 1
        return {path: self.all_rows[path] for path in paths if path in self.all_rows}

    def claims(self, paths: Iterable[bytes]) -> dict[bytes, list[Claim]]:
        self.reads += 1
        wanted, found = set(paths), dict[bytes, list[Claim]]()
        for names in self.all_claims.values():
            for name in wanted.intersection(names):
                found.setdefault(name, []).extend(names[name])
        return found

    def names_of(self, homes: Iterable[bytes]) -> dict[bytes, dict[bytes, list[Claim]]]:
        self.reads += 1
        return {home: self.all_claims[home] for home in homes if home in self.all_claims}

    def shown_elsewhere(self, home: bytes) -> dict[bytes, Row]:
        self.reads += 1
        return {
            path: row
            for path, row in self.all_rows.items()
            if row.place.home == home and path != home
        }

    def live_below(self, path: bytes) -> Iterator[bytes]:
        self.reads += 1
        living = (p for p, entry in self.all_entries.items() if entry.live)
        return iter(sorted(p for p in living if _below(p, path)))

    def rows_below(self, path: bytes) -> Iterator[bytes]:
        self.reads += 1
        return iter(sorted(p for p in self.all_rows if _below(p, path)))

    # -- core.moves.Reader

    def wants(self, paths: Iterable[bytes]) -> dict[bytes, Want]:
        return {path: self.needed[path] for path in paths if path in self.needed}

    def children(self, directory: bytes) -> dict[bytes, Row]:
        begin = len(directory) + 1 if directory else 0
        return {
            path[begin:]: row
            for path, row in self.all_rows.items()
            if _below(path, directory) and b"/" not in path[begin:]
        }

    def rows_in(self, directory: bytes) -> Iterator[tuple[bytes, Row]]:
        return iter(
            sorted((p, row) for p, row in self.all_rows.items() if _below(p, directory))
        )

    def wants_in(self, directory: bytes) -> Iterator[tuple[bytes, Want]]:
        found = ((p, want) for p, want in self.needed.items() if _below(p, directory))
        return iter(sorted(found, key=lambda item: item[0]))

    def directories_going(self) -> Iterator[bytes]:
        going: set[bytes] = set()
        for path, want in sorted(self.needed.items(), key=lambda item: item[0]):
            row = self.all_rows.get(path)
            stands = row is not None and row.place.kind is Kind.DIRECTORY
            if want.place is None and stands and going.isdisjoint(ancestors(path)):
                going.add(path)
                yield path

    def directories_coming(self) -> Iterator[bytes]:
        for path, want in sorted(self.needed.items(), key=lambda item: item[0]):
            wanted = want.place is not None and want.place.kind is Kind.DIRECTORY
            if wanted and path not in self.all_rows:
                yield path

    def rename_directory(self, source: bytes, path: bytes) -> None:
        for old in [source, *(below for below, _ in self.rows_in(source))]:
            new = path + old[len(source) :]
            want = self.needed.pop(new)
            assert want.place is not None
            self.all_rows[new] = Row(want.place, self.all_rows.pop(old).signature)
            del self.needed[old]


def _below(path: bytes, directory: bytes) -> bool:
    return path.startswith(directory + b"/") if directory else True
