"""What is known of one path: the context and the live values (design: data model, 4.1).

An entry without live values is a tombstone, one live value is the normal case, more are a
conflict nobody has touched yet. Entries are values; the msgpack form of an `Entry` is at once
what the index stores and what travels.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

from p2psync.core.ids import Dot
from p2psync.core.vector import Vector


class Kind(IntEnum):
    """What stands at a path."""

    FILE = 1
    DIRECTORY = 2
    LINK = 3


class Value(msgspec.Struct, frozen=True, array_like=True):
    """One content a path can have; named by the dot that made it.

    content: BLAKE3-256 of a file's bytes, of a link's target text; empty for a directory.
    size: bytes of a file; 0 for the others.
    link: a link's target, verbatim; empty for the others.
    height: 1 + the greatest in the entry when made: the edit of the winner stays the winner.
    executable, mtime_ns: the metadata; False and 0 for directories and links.
    stamp_height, stamp_dot: when the metadata was last set alone; the greatest wins.
    """

    kind: Kind
    content: bytes
    size: int
    link: bytes
    height: int
    executable: bool
    mtime_ns: int
    stamp_height: int
    stamp_dot: Dot


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """All that is known of one path.

    ctx: every dot of this path taken in, superseded ones included.
    live: the values nobody is known to have superseded, by dot.
    """

    ctx: Vector
    live: dict[Dot, Value]


EMPTY: Final = Entry({}, {})
