"""Finds the directories that only have to be renamed: everything below goes with them.

A directory fits a place where nothing stands when the view wants nothing of it where it is, and
wants at that place, under the same names, all that the rows say stands below it: then one
rename makes the disk look like the view, however much lies below. What is wanted there besides
comes later. A directory that does not fit is left to `core.plan`, but the directories in it are
tried one by one, each where the view wants one of its name: what moves is as large as can be.

Where to look for such a place is guessed: by names, and by one file. Whether it fits is not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

from p2psync.core.entry import Kind
from p2psync.core.index import Place, Row, Want
from p2psync.core.paths import ancestors, join, name, parent
from p2psync.core.plan import MakeDirectory
from p2psync.core.view import same_looks, same_object

GOING: Final = 1_000  # directories that go, looked at in one search
COMING: Final = 4_096  # places where one may have come to
PROBE_ROWS: Final = 64  # looked at for one file to guess by


@dataclass(frozen=True, slots=True)
class MoveDirectory:
    """Rename the directory at `source`, with all its rows, to a path where nothing stands.

    Everything below is as its rows say; afterwards all of it is as the view wants it there,
    and nothing is wanted at `source`.
    """

    source: bytes
    path: bytes
    place: Place
    row: Row
    after: frozenset[bytes]


class Reader(Protocol):
    """What is asked of the index; every answer is of one and the same moment."""

    def rows(self, paths: Collection[bytes]) -> dict[bytes, Row]:
        """Return the rows of those of the paths that have one."""
        ...

    def wants(self, paths: Collection[bytes]) -> dict[bytes, Want]:
        """Return those of the paths that are needed, with what is wanted there."""
        ...

    def children(self, directory: bytes) -> Mapping[bytes, Row]:
        """Return the rows directly inside a directory, by name."""
        ...

    def rows_in(self, directory: bytes) -> Iterator[tuple[bytes, Row]]:
        """Yield what stands strictly below a directory, ascending by path."""
        ...

    def wants_in(self, directory: bytes) -> Iterator[tuple[bytes, Want]]:
        """Yield what is needed strictly below a directory, ascending by path."""
        ...

    def directories_going(self) -> Iterator[bytes]:
        """Yield where a directory stands and nothing is wanted, ascending; none in another."""
        ...

    def directories_coming(self) -> Iterator[bytes]:
        """Yield where a directory is wanted and nothing stands, ascending."""
        ...


def directory_moves(
    index: Reader, unfit: Collection[bytes] = ()
) -> list[MakeDirectory | MoveDirectory]:
    """Return the renames of whole directories that bring the disk nearer to the view.

    Directories around them that are still to be made come before them. unfit: directories that
    are known not to be as their rows say.
    """
    pending: deque[tuple[bytes, bytes | None]]
    pending = deque((source, None) for source in islice(index.directories_going(), GOING))
    if not pending:
        return []
    search = _Search(index, list(islice(index.directories_coming(), COMING)))
    for _ in range(GOING):
        if not pending:
            break
        source, guess = pending.popleft()
        target = search.target(source, guess)
        if target is not None and source not in unfit and search.fits(source, target):
            search.found[target] = source
        else:
            pending += search.inside(source, target)
    return search.steps()


class _Search:
    """One search under way."""

    def __init__(self, index: Reader, coming: list[bytes]) -> None:
        self.found: dict[bytes, bytes] = {}  # target -> source
        self._index = index
        self._coming = dict.fromkeys(coming)

    def target(self, source: bytes, guess: bytes | None) -> bytes | None:
        """Return where the directory may be wanted now; guess: the first place to think of."""
        probe = self._probe(source)
        if probe is None:
            return None
        path, row = probe
        near = [
            p for p in self._coming if parent(p) == parent(source) or name(p) == name(source)
        ]
        for places in ([guess] if guess else [], near, list(self._coming)):
            free = [place for place in places if self._is_free(place)]
            wants = self._index.wants([place + path[len(source) :] for place in free])
            for place in free:
                want = wants.get(place + path[len(source) :])
                if want and want.place and same_object(want.place, row.place):
                    return place
        return None

    def _probe(self, source: bytes) -> tuple[bytes, Row] | None:
        """Return one file of the directory, by which to guess where it is wanted."""
        for path, row in islice(self._index.rows_in(source), PROBE_ROWS):
            if row.place.kind is not Kind.DIRECTORY:
                return path, row
        return None

    def _is_free(self, place: bytes) -> bool:
        return place in self._coming and not any(
            taken in self.found for taken in (place, *ancestors(place))
        )

    def fits(self, source: bytes, target: bytes) -> bool:
        """Say whether all that stands in one directory is what is wanted in the other."""
        wanted = self._index.wants([target]).get(target)
        if wanted is None or wanted.place is None or wanted.place.home != target:
            return False
        wants = self._index.wants_in(target)
        for path, row in self._index.rows_in(source):
            there = target + path[len(source) :]
            at, want = next((item for item in wants if item[0] >= there), (b"", None))
            if at != there or want is None or not _serves(row.place, want.place, there):
                return False
        return True

    def inside(self, source: bytes, target: bytes | None) -> list[tuple[bytes, bytes | None]]:
        """Return the directories directly in one that does not fit, and where to look first."""
        return [
            (join(source, child), target and join(target, child))
            for child, row in self._index.children(source).items()
            if row.place.kind is Kind.DIRECTORY
        ]

    def steps(self) -> list[MakeDirectory | MoveDirectory]:
        """Return what was found as steps, parents first."""
        steps: list[MakeDirectory | MoveDirectory] = []
        for target in sorted(self.found):
            source = self.found[target]
            around = [p for p in reversed(ancestors(target)) if p not in self.found]
            wants = self._index.wants([target, *around])
            rows = self._index.rows([source, *around])
            made = {step.path for step in steps}
            missing = [p for p in around if p not in made and p not in rows]
            if not all(_is_wanted(wants.get(p)) for p in missing) or any(
                p in rows and rows[p].place.kind is not Kind.DIRECTORY for p in around
            ):
                continue  # something else stands in the way
            for path in (*missing, target):
                after = frozenset((parent(path),)) & ({*made, *missing} | self.found.keys())
                place = wants[path].place
                assert place is not None  # a directory is wanted there
                if path == target:
                    steps.append(MoveDirectory(source, path, place, rows[source], after))
                else:
                    steps.append(MakeDirectory(path, place, after))
        return steps


def _serves(standing: Place, wanted: Place | None, path: bytes) -> bool:
    return (
        wanted is not None
        and wanted.home == path
        and wanted.size == standing.size
        and same_looks(wanted, standing)
    )


def _is_wanted(want: Want | None) -> bool:
    return want is not None and want.place is not None and want.place.kind is Kind.DIRECTORY
