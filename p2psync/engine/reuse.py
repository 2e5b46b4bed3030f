"""Which chunks of a large content stand in files here already, and where.

Only where they *should* be: whoever copies them hashes what is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from p2psync.core.observed import Manifest, Observed
from p2psync.fs.hashing import observe
from p2psync.fs.partial import Partial
from p2psync.fs.pieces import Chunk
from p2psync.fs.root import Root
from p2psync.protocol import limits
from p2psync.store.index import Index

_PORTION_BYTES: Final = (
    8 * limits.MIB
)  # copied by one call, between looks at what else there is


@dataclass
class Copy:
    """Chunks to be copied from one file. source: a path, or a name in the history."""

    source: bytes
    history: bool
    chunks: list[tuple[int, Chunk]] = field(default_factory=list)
    """Where each begins in the source, and the chunk."""

    size: int = 0

    def take(self, partial: Partial) -> set[int]:
        """Copy them; return the offsets of those that were there. Raises OSError."""
        return partial.take_from(self.source, self.chunks, history=self.history)


def copies(index: Index, wanted: Iterable[Chunk]) -> tuple[list[Copy], list[Chunk]]:
    """Return what can be copied, in the order of the chunks, and the chunks that cannot."""
    listed = list(wanted)
    known = index.chunk_sources([chunk[2] for chunk in listed])
    places: dict[bytes, tuple[bytes, bool] | None] = {}
    found: list[Copy] = []
    lacking: list[Chunk] = []
    for chunk in listed:
        content, at, size = next(iter(known.get(chunk[2], ())), (b"", 0, -1))
        if content not in places:
            places[content] = _place(index, content)
        place = places[content]
        if place is None or size != chunk[1]:
            lacking.append(chunk)
            continue
        last = found[-1] if found else None
        if last is None or (last.source, last.history) != place or last.size >= _PORTION_BYTES:
            last = Copy(*place)
            found.append(last)
        last.chunks.append((at, chunk))
        last.size += size
    return found, lacking


def _place(index: Index, content: bytes) -> tuple[bytes, bool] | None:
    for path, _ in index.rows_with_content(content, 1) if content else ():
        return path, False
    for name in index.history_with_content(content)[:1] if content else ():
        return name, True
    return None


def manifest_here(index: Index, root: Root, content: bytes, path: bytes) -> Manifest | None:
    """Return the manifest of a content that stands at a path; None: it does not any more.

    It is made now where the file came whole, or its row was adopted.
    """
    known = index.manifest(content)
    if known is None:
        seen = observe(root, path)
        if isinstance(seen, Observed) and seen.content == content and seen.manifest:
            known = seen.manifest
            index.put_manifests([(content, known)])
    return known
