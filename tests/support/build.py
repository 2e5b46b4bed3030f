"""Builds entries, places, rows and changes for tests in a word or two."""

from __future__ import annotations

from collections.abc import Mapping

from blake3 import blake3

from p2psync.core.entry import Entry, Kind, Value
from p2psync.core.ids import Dot
from p2psync.core.index import Changes, Facts, Place, Row, Signature
from p2psync.core.vector import Vector, join

AUTHOR = 2**63 + 17  # needs all 64 bits
OTHER = 5


def content(text: str) -> bytes:
    """Return the content that a text stands for."""
    return blake3(text.encode()).digest()


def value(text: str, dot: Dot = (AUTHOR, 1), *, size: int = 10) -> Value:
    """A regular file's value."""
    return Value(Kind.FILE, content(text), size, b"", 1, False, 1_000, 1, dot)


def entry(
    *texts: str, dots: tuple[Dot, ...] = ((AUTHOR, 1),), past: Vector | None = None
) -> Entry:
    """An entry whose live values have these contents, by these dots; no text: a tombstone."""
    ctx: Vector = dict(past or {})
    for author, seq in dots:
        ctx = join(ctx, {author: seq})
    live = {dot: value(text, dot) for text, dot in zip(texts, dots, strict=False)}
    return Entry(ctx, live)


def file_place(
    path: bytes, text: str, *, size: int = 10, dot: Dot = (AUTHOR, 1), home: bytes | None = None
) -> Place:
    """What the view wants at a path where a regular file should be."""
    return Place(
        Kind.FILE, content(text), size, b"", False, 1_000, frozenset([dot]), home or path
    )


def directory_place(path: bytes) -> Place:
    """What the view wants at a path where a directory should be."""
    return Place(Kind.DIRECTORY, b"", 0, b"", False, 0, frozenset(), path)


def file_row(
    path: bytes, text: str, *, size: int = 10, dot: Dot = (AUTHOR, 1), home: bytes | None = None
) -> Row:
    """A regular file on the disk."""
    signature = Signature(1, 2, size, 1_000, 2_000, 0o100644)
    return Row(file_place(path, text, size=size, dot=dot, home=home), signature)


def directory_row(path: bytes) -> Row:
    """A directory on the disk."""
    return Row(directory_place(path), None)


def changes(
    before: Facts,
    *,
    entries: Mapping[bytes, Entry | None] | None = None,
    rows: Mapping[bytes, Row | None] | None = None,
) -> Changes:
    """Changes that give the entries the next arrivals and leave the rest of the facts."""
    arrival = before.arrival
    stored: dict[bytes, tuple[int, Entry] | None] = {}
    for path, new in (entries or {}).items():
        if new is None:
            stored[path] = None
        else:
            arrival += 1
            stored[path] = (arrival, new)
    facts = Facts(before.author, before.seq, arrival, before.known, before.collected)
    return Changes(facts, stored, dict(rows or {}))
