"""A manifest told as its difference from another one, so that a small edit tells little.

1 GiB has a manifest of 490 KB; one byte changed in it is told in 100 bytes. Whatever a peer
calls a difference, `combined` returns a manifest within the limit, or None.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

from p2psync.core.ids import CONTENT_BYTES
from p2psync.core.observed import Manifest

Span = tuple[int, int, int]
"""So many fresh chunks, then of the base, from its chunk `first` on, so many: (n, first, m)."""


def difference(base: Manifest, wanted: Manifest) -> tuple[Manifest, list[Span]]:
    """Return those chunks of `wanted` that the base lacks, and how the two make it.

    Never no span: an empty list means that there is no base.
    """
    hashes = hashes_of(wanted)
    known: dict[bytes, int] = {}
    for number, chunk in enumerate(hashes_of(base)):
        known.setdefault(chunk, number)
    in_base = hashes_of(base)
    spans: list[Span] = []
    fresh: list[int] = []
    count = first = taken = 0
    for number, chunk in enumerate(hashes):
        following = first + taken
        if taken and following < len(in_base) and in_base[following] == chunk:
            taken += 1
            continue
        if taken:
            spans.append((count, first, taken))
            count = taken = 0
        found = known.get(chunk)
        if found is None:
            fresh.append(number)
            count += 1
        else:
            first, taken = found, 1
    if taken or count or not spans:
        spans.append((count, first if taken else 0, taken))
    told = Manifest(b"".join(hashes[n] for n in fresh), [wanted.sizes[n] for n in fresh])
    return told, spans


def combined(
    base: Manifest, fresh: Manifest, spans: Sequence[Span], largest: int
) -> Manifest | None:
    """Return what fresh chunks and spans make of the base; None if they make nothing of it.

    largest: how many chunks a manifest may have.
    """
    if sum(count + taken for count, _, taken in spans) > largest:
        return None
    if sum(count for count, _, _ in spans) != len(fresh.sizes):
        return None
    hashes: list[bytes] = []
    sizes: list[int] = []
    done = 0
    for count, first, taken in spans:
        if first + taken > len(base.sizes):
            return None
        for source, begin, end in ((fresh, done, done + count), (base, first, first + taken)):
            hashes.append(source.hashes[CONTENT_BYTES * begin : CONTENT_BYTES * end])
            sizes += source.sizes[begin:end]
        done += count
    return Manifest(b"".join(hashes), sizes)


def hashes_of(manifest: Manifest) -> list[bytes]:
    """Return the hash of each chunk, in order."""
    whole = manifest.hashes
    return [whole[at : at + CONTENT_BYTES] for at in range(0, len(whole), CONTENT_BYTES)]


def chunks_of(manifest: Manifest) -> list[tuple[int, int, bytes]]:
    """Return the chunks with their places, in order: offset, size, hash."""
    offsets: Iterable[int] = accumulate(manifest.sizes, initial=0)
    return list(zip(offsets, manifest.sizes, hashes_of(manifest), strict=False))
