"""An index with changes on top that are not written yet.

Everything is read in bulk (`load`) and remembered, so that a batch of paths costs a handful of
questions to the index however many rules look at it. What a rule changes is seen by the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from p2psync.core.entry import EMPTY, Entry, Kind, Value
from p2psync.core.ids import Dot
from p2psync.core.index import Claim, Place, Reader, Row
from p2psync.core.paths import is_below, parent
from p2psync.core.reconcile import HEIGHT_MAX
from p2psync.core.vector import Vector, join
from p2psync.core.view import Names


class Overlay:
    """Entries, rows and claims as they are with the changes so far."""

    def __init__(self, reader: Reader, spare_author: int) -> None:
        facts = reader.facts()
        self.reader = reader
        self.known: Vector = facts.known
        self.collected: Vector = facts.collected
        self.author = facts.author
        self.seq = facts.seq
        self.arrival = facts.arrival
        self._spare_author = spare_author
        self._known_is_ours = False
        self._entries: dict[bytes, Entry | None] = {}
        self._rows: dict[bytes, Row | None] = {}
        self._names: dict[bytes, Names] = {}
        self._claims: dict[bytes, list[Claim]] = {}
        self._stored: dict[bytes, None] = {}  # in the order of their arrival
        self._rows_set: set[bytes] = set()
        self._names_set: set[bytes] = set()
        self._dirty: dict[bytes, Entry | None] = {}  # the entry when the target last looked

    # ------------------------------------------------------------------------- reading

    def load(self, paths: Iterable[bytes]) -> None:
        """Read all that the rules may ask about these paths and the directories above them."""
        entries = self._entries
        missing: set[bytes] = set()
        for path in paths:
            # Where a path is known so are the directories above it.
            while path and path not in entries and path not in missing:
                missing.add(path)
                path = parent(path)
        if not missing:
            return
        found = self.reader.entries(missing)
        rows = self.reader.rows(missing)
        claims = self.reader.claims(missing)
        names = self.reader.names_of(missing)
        for path in missing:
            entries[path] = found.get(path)
            self._rows[path] = rows.get(path)
            self._claims[path] = claims.get(path, [])
            self._names[path] = names.get(path, {})

    def entry(self, path: bytes) -> Entry:
        """Return what is known of the path; `EMPTY` when nothing is."""
        return self._get(path) or EMPTY

    def _get(self, path: bytes) -> Entry | None:
        if path not in self._entries:
            self.load((path,))
        return self._entries[path]

    def row(self, path: bytes) -> Row | None:
        """Return what is believed to stand on the disk at the path; None: nothing."""
        if path not in self._rows:
            self.load((path,))
        return self._rows[path]

    def names_of(self, home: bytes) -> Names:
        """Return the claims of the copies of `home`, by name; not to be changed."""
        if home not in self._names:
            self.load((home,))
        return self._names[home]

    def claims_on(self, name: bytes) -> list[Claim]:
        """Return all claims on a name, its own mark as an implicit directory included."""
        if name not in self._claims:
            self.load((name,))
        return self._claims[name]

    def rows_elsewhere(self, home: bytes) -> dict[bytes, Row]:
        """Return the rows at other paths that show conflict copies of `home`."""
        found = {
            path: row
            for path, row in self.reader.shown_elsewhere(home).items()
            if path not in self._rows_set
        }
        for path in self._rows_set:
            row = self._rows[path]
            if row is not None and path != home and row.place.home == home:
                found[path] = row
        return found

    def rows_under(self, directory: bytes) -> Iterator[bytes]:
        """Yield the paths strictly below a directory that have rows."""
        for path in self.reader.rows_below(directory):
            if path not in self._rows_set:
                yield path
        for path in self._rows_set:
            if self._rows[path] is not None and is_below(path, directory):
                yield path

    # ------------------------------------------------------------------------- writing

    def store(self, path: bytes, entry: Entry | None) -> None:
        """Replace what is known of the path, under a new arrival; None: it is collected."""
        self._dirty.setdefault(path, self._get(path))
        self._entries[path] = entry
        self._stored.pop(path, None)
        self._stored[path] = None

    def set_row(self, path: bytes, row: Row | None) -> None:
        """Replace what is believed to stand on the disk at the path."""
        if path not in self._rows:
            self.load((path,))
        self._rows[path] = row
        self._rows_set.add(path)

    def _set_names(self, home: bytes, names: Names) -> None:
        """Replace the claims of one home."""
        old = self.names_of(home)
        if old == names:
            return
        for name in old:
            self._claims[name] = [c for c in self.claims_on(name) if c.home != home]
        for name, claims in names.items():
            self._claims[name] = [*self.claims_on(name), *claims]
        self._names[home] = names
        self._names_set.add(home)

    # ------------------------------------------------------------------- local changes

    def dot(self) -> Dot:
        """Make the next dot of this replica, and know it."""
        if not self.author:
            self.author, self.seq = self._spare_author, 0
        self.seq += 1
        if not self._known_is_ours:
            self.known, self._known_is_ours = dict(self.known), True
        self.known[self.author] = self.seq
        return (self.author, self.seq)

    def supersede(
        self, path: bytes, dots: Iterable[Dot], put: Place | None
    ) -> tuple[Dot, Entry]:
        """Make one local change: take off the dots that were seen and put one object on.

        put: what stands there now (its dots and home are not used); None: nothing. Always one
        new dot, and it is in the context: that is why knowledge may stand for state.
        """
        entry, dot = self.entry(path), self.dot()
        live = dict(entry.live)
        height = 1 + max((value.height for value in live.values()), default=0)
        for seen in dots:
            live.pop(seen, None)
        if put is not None:
            live[dot] = _value_of(put, min(height, HEIGHT_MAX), dot)
        changed = Entry(join(entry.ctx, {dot[0]: dot[1]}), live)
        self.store(path, changed)
        return dot, changed

    def stamp(self, path: bytes, dots: frozenset[Dot], executable: bool, mtime_ns: int) -> None:
        """Make one local change of metadata only: the values keep their dots.

        dots: those shown; at least one of them is live.
        """
        entry, dot = self.entry(path), self.dot()
        height = 1 + max(value.stamp_height for value in entry.live.values())
        live = {
            seen: _stamped(value, executable, mtime_ns, min(height, HEIGHT_MAX), dot)
            if seen in dots
            else value
            for seen, value in entry.live.items()
        }
        self.store(path, Entry(join(entry.ctx, {dot[0]: dot[1]}), live))


def _value_of(put: Place, height: int, dot: Dot) -> Value:
    return Value(
        put.kind,
        put.content,
        put.size,
        put.link,
        height,
        put.executable,
        put.mtime_ns,
        height,
        dot,
    )


def _stamped(value: Value, executable: bool, mtime_ns: int, height: int, dot: Dot) -> Value:
    return Value(
        value.kind,
        value.content,
        value.size,
        value.link,
        value.height,
        executable,
        mtime_ns,
        height,
        dot,
    )


def lives(entry: Entry | None) -> bool:
    """Say whether the entry has a live value."""
    return entry is not None and bool(entry.live)


def is_directory(entry: Entry | None) -> bool:
    """Say whether the entry has a live directory."""
    if entry is None:
        return False
    for value in entry.live.values():  # noqa: SIM110  any() costs three times this, per path
        if value.kind is Kind.DIRECTORY:
            return True
    return False
