"""The shape of an index: what the pure rules read, and what they ask to have written.

The rules of `core.draft` run over a `Reader` (the SQLite index in production, a dict in the
explorations) and leave behind `Changes`, which the store writes in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from p2psync.core.entry import Entry, Kind
from p2psync.core.ids import Dot
from p2psync.core.vector import Vector


class Signature(NamedTuple):
    """What `lstat` said of an object: if it is still the same, so are the bytes."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int


class Place(NamedTuple):
    """What the view wants at a path.

    dots: the live dots it shows; empty for a directory that exists only because something
    lives below it. home: the path whose entry holds the dots; another path than the place's
    own for a conflict copy.
    """

    kind: Kind
    content: bytes
    size: int
    link: bytes
    executable: bool
    mtime_ns: int
    dots: frozenset[Dot]
    home: bytes


class Row(NamedTuple):
    """What the index believes stands on this disk at a path: a `Place` and its signature.

    signature is None when it must be looked at again before it is believed (racy timestamps).
    """

    place: Place
    signature: Signature | None


class Claim(NamedTuple):
    """A name that the copy of `dot` of the conflicted entry at `home` asked for.

    suffix: which of the free suffixes this is. placed: the copy stands here in the view (else
    an ordinary file has the name and the copy stepped aside to a higher index).
    """

    home: bytes
    dot: Dot
    suffix: int
    placed: bool


@dataclass(frozen=True)
class Facts:
    """The counters and vectors of a replica."""

    author: int  # 0 before the first local change of this start
    seq: int
    arrival: int
    known: Vector
    collected: Vector


class Reader(Protocol):
    """Read access to an index; every answer is of one and the same moment."""

    def facts(self) -> Facts:
        """Return the counters and vectors."""
        ...

    def entries(self, paths: Iterable[bytes]) -> dict[bytes, Entry]:
        """Return the entries of those of the paths that have one."""
        ...

    def rows(self, paths: Iterable[bytes]) -> dict[bytes, Row]:
        """Return the rows of those of the paths that have one."""
        ...

    def claims(self, paths: Iterable[bytes]) -> dict[bytes, list[Claim]]:
        """Return who claims these names for conflict copies."""
        ...

    def names_of(self, homes: Iterable[bytes]) -> dict[bytes, dict[bytes, list[Claim]]]:
        """Return home -> name -> the claims of that home on that name."""
        ...

    def shown_elsewhere(self, home: bytes) -> dict[bytes, Row]:
        """Return the rows at other paths that show conflict copies of this home."""
        ...

    def live_below(self, path: bytes) -> Iterator[bytes]:
        """Yield the paths strictly below that have live values, ascending; b"" is the root."""
        ...

    def rows_below(self, path: bytes) -> Iterator[bytes]:
        """Yield the paths strictly below that have rows, ascending; b"" is the root."""
        ...


@dataclass
class Changes:
    """What one step of the rules changes in an index, to be written in one transaction.

    None as a value means the item goes. `needed` holds, for every path whose view or row may
    have changed, whether they differ now: the `Place` wanted (None inside `Want`: nothing
    should stand there), or None when view and row agree.
    """

    facts: Facts
    entries: dict[bytes, tuple[int, Entry] | None] = field(default_factory=dict)
    rows: dict[bytes, Row | None] = field(default_factory=dict)
    claims: dict[bytes, dict[bytes, list[Claim]]] = field(default_factory=dict)
    needed: dict[bytes, Want | None] = field(default_factory=dict)


class Want(NamedTuple):
    """A path whose view and row differ, and what the view wants there; None: nothing."""

    place: Place | None
