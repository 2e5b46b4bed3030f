"""The view: the tree the disk should show, a pure function of the entries.

Equal entries give equal trees on every device, so nobody "makes" a conflict copy and nobody
has to announce one (design: data model, 4.3).

- Values of one kind and content are one object, however many dots made them.
- At the path stands the object of greatest rank. Every other distinct one stands beside it
  under a name computed from the path and the dot (`copy_name`). An ordinary object that has
  this name keeps it, and the copy steps aside to the next free suffix.
- A directory outranks files and links: all directories are one object, so a directory is never
  a conflict copy, and never has to be renamed together with everything below it.
- Where something lives below a path there is a directory, even if no directory value is left
  (one device deleted it while another put a file into it). Such a directory is *implicit*:
  it shows no dots. So a file never hides a subtree.

`view` is the specification, over all entries. `split` and `claim_names` are the pieces of it
that `core.target` applies to the few paths a change can affect.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from blake3 import blake3

from p2psync.core.entry import EMPTY, Entry, Kind, Value
from p2psync.core.ids import Dot
from p2psync.core.index import Claim, Place
from p2psync.core.paths import NAME_BYTES, ancestors, join, name, parent

EXTENSION_BYTES: Final = 32
TAG_LETTERS: Final = 5

Names = dict[bytes, list[Claim]]
"""name -> the claims of one home on it."""


class Copy(NamedTuple):
    """A conflict copy that needs a name; dot is the one the name is computed from."""

    dot: Dot
    place: Place


def rank(dot: Dot, value: Value) -> tuple[bool, int, int, bytes, Dot]:
    """Return the sort key of which the greatest stands at the path.

    Height extends "is an edit of", so the edit of the winner stays the winner. Forging a rank
    gains the plain name and nothing else.
    """
    directory = value.kind is Kind.DIRECTORY
    return (directory, value.height, value.kind, value.content, dot)


def place_of(value: Value, dots: frozenset[Dot], home: bytes) -> Place:
    """Return what the disk shows of a value."""
    return Place(
        value.kind,
        value.content,
        value.size,
        value.link,
        value.executable,
        value.mtime_ns,
        dots,
        home,
    )


def implicit(path: bytes) -> Place:
    """Return the directory that stands at a path only because something lives below it."""
    return Place(Kind.DIRECTORY, b"", 0, b"", False, 0, frozenset(), path)


def split(path: bytes, entry: Entry, container: bool) -> tuple[Place | None, list[Copy]]:
    """Return what stands at the path itself, and its conflict copies by descending rank.

    container: something lives below the path.
    """
    live = entry.live
    if len(live) == 1 and not container:
        ((dot, value),) = live.items()
        return place_of(value, frozenset((dot,)), path), []
    if not live:
        return (implicit(path) if container else None), []
    objects: dict[tuple[Kind, bytes], list[Dot]] = {}
    for dot in sorted(live, key=lambda dot: rank(dot, live[dot]), reverse=True):
        objects.setdefault((live[dot].kind, live[dot].content), []).append(dot)
    copies = [
        Copy(dots[0], place_of(live[dots[0]], frozenset(dots), path))
        for dots in objects.values()
    ]
    if container and copies[0].place.kind is not Kind.DIRECTORY:
        return implicit(path), copies
    return copies[0].place, copies[1:]


def copy_name(path: bytes, dot: Dot, suffix: int) -> bytes:
    """Return the path of a conflict copy, `report.conflict-7KQ2M.txt` beside `report.txt`.

    suffix: 0 for the plain form, 1 for `…-7KQ2M-2.txt`, and so on. The name stays within 255
    bytes: the stem is cut where a character ends, the extension is kept.
    """
    whole = name(path)
    cut = whole.rfind(b".")
    if cut < 1 or len(whole) - cut > EXTENSION_BYTES:
        cut = len(whole)
    stem, extension = whole[:cut], whole[cut:]
    digest = blake3(dot[0].to_bytes(8, "big") + dot[1].to_bytes(8, "big")).digest(5)
    mark = b".conflict-" + base64.b32encode(digest)[:TAG_LETTERS]
    if suffix:
        mark += b"-%d" % (suffix + 1)
    return join(
        parent(path), _cut(stem, NAME_BYTES - len(mark) - len(extension)) + mark + extension
    )


def _cut(stem: bytes, room: int) -> bytes:
    """Return at most `room` bytes of the stem, no UTF-8 character cut in two."""
    if len(stem) <= room:
        return stem
    while room > 0 and stem[room] & 0xC0 == 0x80:
        room -= 1
    return stem[:room]


def claim_names(
    copies: Iterable[tuple[bytes, Copy]], occupied: Callable[[bytes], bool]
) -> dict[bytes, Names]:
    """Give every copy its name; return home -> name -> claims, refused ones included.

    copies: (home, copy), ascending by home and then descending by rank: this order decides who
    has a name that two copies ask for. occupied: an ordinary object has this name.
    """
    claims: dict[bytes, Names] = {}
    taken: set[bytes] = set()
    for home, copy in copies:
        names = claims.setdefault(home, {})
        suffix = 0
        while True:
            wished = copy_name(home, copy.dot, suffix)
            placed = wished not in taken and not occupied(wished)
            names.setdefault(wished, []).append(Claim(home, copy.dot, suffix, placed))
            if placed:
                break
            suffix += 1
        taken.add(wished)
    return claims


def containers(entries: Mapping[bytes, Entry]) -> set[bytes]:
    """Return the paths below which something lives."""
    found: set[bytes] = set()
    for path, entry in entries.items():
        if entry.live:
            for above in ancestors(path):
                if above in found:
                    break
                found.add(above)
    return found


def view(entries: Mapping[bytes, Entry]) -> dict[bytes, Place]:
    """Return the whole tree the disk should show, by path."""
    holding = containers(entries)
    tree: dict[bytes, Place] = {}
    copies: list[tuple[bytes, Copy]] = []
    for path in sorted(holding.union(entries)):
        top, beside = split(path, entries.get(path, EMPTY), path in holding)
        if top is not None:
            tree[path] = top
        copies.extend((path, copy) for copy in beside)
    by_dot = {(home, copy.dot): copy.place for home, copy in copies}
    ordinary = frozenset(tree)
    for home, names in claim_names(copies, ordinary.__contains__).items():
        for wished, claims in names.items():
            for claim in claims:
                if claim.placed:
                    tree[wished] = by_dot[home, claim.dot]
    return tree


def same_object(a: Place, b: Place) -> bool:
    """Say whether two places hold the same kind and content."""
    return a[:2] == b[:2]


def same_looks(a: Place, b: Place) -> bool:
    """Say whether the disk needs no change to show one instead of the other.

    A size and a link's target follow from the content; a peer's wrong ones change nothing.
    """
    return a[:2] == b[:2] and a[4:6] == b[4:6]
