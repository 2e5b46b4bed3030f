"""Local changes: what the disk shows and the rows do not is what somebody did here.

One scan of some paths (design: data model, 4.5, 4.8), in this order:

1. What equals the view is ours, without a dot: an apply that was not recorded. Unless bytes of
   the row are wanted elsewhere and are not there: apply puts those aside first, so then it was
   the user.
2. A changed or deleted conflict copy takes its dots off the entry of its home; what stands
   there now is a new ordinary object.
3. Every other change takes the dots of the row off its entry (what the user had before him,
   not what the view has become meanwhile) and puts what he left there on. Dots whose bytes
   stand where the view wants them stay: we had put those aside before the user came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from p2psync.core.entry import Kind
from p2psync.core.ids import Dot
from p2psync.core.index import Place, Row, Signature
from p2psync.core.observed import Observed
from p2psync.core.target import Target
from p2psync.core.view import same_looks, same_object

Look = Callable[[bytes], "Observed | Place | None"]

_NO_DOTS: frozenset[Dot] = frozenset()


def scan(target: Target, observed: Mapping[bytes, Observed | None], look: Look | None) -> None:
    """Take in what a look at the disk found at these paths; None: confirmed to be missing.

    look: what stands on the disk at any other path; without it the rows are believed.
    """
    target.load(observed)
    scanned = _Scan(target, observed, look)
    for path in scanned.settled_by_adoption():
        scanned.release_copy(path)
    for path in scanned.left:
        scanned.change(path)


class _Scan:
    """One scan under way."""

    def __init__(
        self, target: Target, observed: Mapping[bytes, Observed | None], look: Look | None
    ) -> None:
        self.target = target
        self.left: list[bytes] = []
        self._found: dict[bytes, tuple[Place | None, Signature | None]] = {}
        self._look = look
        self._kept: dict[bytes, frozenset[Dot]] = {}
        for path in sorted(observed):  # a directory before what it holds
            found = observed[path]
            place = None if found is None else _place(found, path)
            self._found[path] = (place, None if found is None else found.signature)

    def settled_by_adoption(self) -> list[bytes]:
        """Adopt what equals the row or the view, before any change; return the rest.

        Also notes, for every path of the rest, which dots of its row stand elsewhere.
        """
        target, adopted = self.target, []
        for path, (found, signature) in self._found.items():
            row = target.row(path)
            if row is None:
                if found is None:
                    continue
            elif found is not None and same_looks(found, row.place):
                if signature != row.signature:
                    target.set_row(path, Row(row.place, signature))
                continue
            kept, missing = self._elsewhere(path, row)
            want = target.want(path)
            if not missing and _equal(found, want):
                adopted.append((path, None if want is None else Row(want, signature)))
            else:
                self.left.append(path)
                if kept:
                    self._kept[path] = kept
        for path, row in adopted:
            target.set_row(path, row)
        return self.left

    def _elsewhere(self, path: bytes, row: Row | None) -> tuple[frozenset[Dot], bool]:
        """Return the row's dots that stand where the view wants them, and whether some do not.

        Only of dots that the view wants at another path than this.
        """
        if row is None or not row.place.dots:
            return _NO_DOTS, False
        home = row.place.home
        if home == path and not self.target.names_of(home):
            return _NO_DOTS, False  # the ordinary case: nothing of it is shown elsewhere
        kept, missing = _NO_DOTS, False
        for other, place in self.target.shown(home).items():
            if other != path and place.dots & row.place.dots:
                if self._stands(other, row.place):
                    kept |= place.dots
                else:
                    missing = True
        return kept, missing

    def _stands(self, path: bytes, place: Place) -> bool:
        found = self._seen(path)
        return found is not None and found[0] == place.kind and found[1] == place.content

    def _seen(self, path: bytes) -> Observed | Place | None:
        if path in self._found:
            return self._found[path][0]
        if self._look is not None:
            return self._look(path)
        row = self.target.row(path)
        return None if row is None else row.place

    # ------------------------------------------------------------------------- changes

    def release_copy(self, path: bytes) -> None:
        """A conflict copy that was changed or deleted leaves the entry of its home."""
        row = self.target.row(path)
        if row is None or row.place.home == path:
            return
        home, dots = row.place.home, row.place.dots
        if not dots.isdisjoint(self.target.entry(home).live) and not self._is_loser(path, row):
            self.target.supersede(home, dots, None)
        self.target.set_row(path, None)

    def _is_loser(self, path: bytes, row: Row) -> bool:
        """Say whether the value of the copy still stands at its home as well.

        Then we died between putting the copy there and replacing the loser, and who deletes
        one of two equal files does not ask for the other to go.
        """
        at_home = self.target.row(row.place.home)
        return (
            at_home is not None
            and not at_home.place.dots.isdisjoint(row.place.dots)
            and self._stands(row.place.home, row.place)
        )

    def change(self, path: bytes) -> None:
        """Record what the user did at one path."""
        target = self.target
        found, signature = self._found[path]
        row = target.row(path)
        dots = _NO_DOTS if row is None else row.place.dots - self._kept.get(path, _NO_DOTS)
        if found is None:
            if row is not None:
                self._deleted(path, dots)
        elif row is not None and same_object(found, row.place):
            self._retouched(path, row, dots)
        else:
            dot, _ = target.supersede(path, dots, found)
            place = found._replace(dots=frozenset((dot,)))
            target.set_row(path, Row(place, signature))

    def _deleted(self, path: bytes, dots: frozenset[Dot]) -> None:
        target = self.target
        if not dots.issuperset(target.entry(path).live):
            # Other values live on. What this disk shows of them must not jump into the name.
            for copy, row in sorted(target.rows_elsewhere(path).items()):
                if self._seen(copy) is not None:
                    _to_ordinary(target, copy, row)
        if not dots.isdisjoint(target.entry(path).live):
            target.supersede(path, dots, None)
        # else it is superseded already: the delete says nothing, the newer value is fetched
        target.set_row(path, None)

    def _retouched(self, path: bytes, row: Row, dots: frozenset[Dot]) -> None:
        """Only the metadata changed: the value keeps its dot, nothing is transferred."""
        found, signature = self._found[path]
        assert found is not None  # a retouched path was found
        if not dots.isdisjoint(self.target.entry(path).live):
            self.target.stamp(path, dots, found.executable, found.mtime_ns)
        place = found._replace(dots=dots, home=row.place.home)
        self.target.set_row(path, Row(place, signature))


def _to_ordinary(target: Target, path: bytes, row: Row) -> None:
    """Make the conflict copy at the path an ordinary object, its value leaving its home."""
    place = row.place
    if place.dots.isdisjoint(target.entry(place.home).live):
        return  # superseded meanwhile: it will be taken away like any stale copy
    target.supersede(place.home, place.dots, None)
    dot, _ = target.supersede(path, (), place)
    target.set_row(path, Row(place._replace(dots=frozenset((dot,)), home=path), row.signature))


def _place(found: Observed, path: bytes) -> Place:
    """Return what was found, without the metadata that directories and links do not have."""
    if found.kind is Kind.FILE:
        return Place(*found[:6], _NO_DOTS, path)
    if found.kind is Kind.DIRECTORY:
        return Place(Kind.DIRECTORY, b"", 0, b"", False, 0, _NO_DOTS, path)
    return Place(Kind.LINK, found.content, 0, found.link, False, 0, _NO_DOTS, path)


def _equal(found: Place | None, want: Place | None) -> bool:
    if found is None or want is None:
        return found is want
    return same_looks(found, want)
