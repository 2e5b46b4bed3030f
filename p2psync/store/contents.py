"""Keeps where contents and their chunks are to be found: manifests, and the history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from p2psync.core.ids import CONTENT_BYTES
from p2psync.core.observed import Manifest
from p2psync.store.encoding import decode_sizes, encode, prefix
from p2psync.store.facts import FactsPart

CHUNK_KEY: Final = 16
SOURCES_PER_CHUNK: Final = 4
HISTORY_NAMES: Final = 8


class HistoryRecord(NamedTuple):
    """A displaced or deleted content under `.p2psync/history`.

    name: of the file there. path: where the content stood. when_ns: since the epoch.
    """

    name: bytes
    path: bytes
    content: bytes
    size: int
    when_ns: int
    reason: str


class ContentsPart(FactsPart):
    """The part of an index that holds the chunks of large files, and the history."""

    # ------------------------------------------------------------------ manifests

    def put_manifests(self, items: Iterable[tuple[bytes, Manifest]]) -> None:
        """Keep the chunks of large files, by content; one that is known already stays."""
        with self.transaction():
            for content, manifest in items:
                self._put_manifest(content, manifest)

    def _put_manifest(self, content: bytes, manifest: Manifest) -> None:
        if len(manifest.hashes) != CONTENT_BYTES * len(manifest.sizes):
            raise ValueError("a manifest has one hash for each size")
        added = self._db.one(
            "INSERT INTO manifests (content, prefix, hashes, sizes) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (content) DO NOTHING RETURNING id",
            (content, prefix(content), manifest.hashes, encode(manifest.sizes)),
        )
        if added is None:
            return
        offsets = accumulate(manifest.sizes, initial=0)
        self._db.many(
            "INSERT INTO chunks (hash, manifest, offset, size) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (hash, manifest) DO NOTHING",  # the first of equal chunks will do
            [
                (key, added[0], offset, size)
                for key, offset, size in zip(
                    _chunk_keys(manifest.hashes), offsets, manifest.sizes, strict=False
                )
            ],
        )

    def manifest(self, content: bytes) -> Manifest | None:
        """Return the chunks of a large file, or None when they are not known here."""
        found = self._db.one(
            "SELECT hashes, sizes FROM manifests WHERE content = ?", (content,)
        )
        if found is None:
            return None
        return Manifest(found[0], self._db.decoded(decode_sizes, found[1]))

    def forget_manifest(self, content: bytes) -> None:
        """Drop a manifest that turned out to be of another file."""
        with self.transaction():
            for number, hashes in self._db.all(
                "DELETE FROM manifests WHERE content = ? RETURNING id, hashes", (content,)
            ):
                self._drop_chunks(number, hashes)

    def chunk_sources(
        self, hashes: Sequence[bytes]
    ) -> dict[bytes, list[tuple[bytes, int, int]]]:
        """Return where chunks should stand in large files or history here.

        Chunk hash -> some (content of the file, offset, size in bytes). Only where the bytes
        *should* be: hash what is read there before it is used.
        """
        sources: dict[bytes, list[tuple[bytes, int, int]]] = {}
        for chunk in hashes:
            found = self._db.all(
                "SELECT m.content, c.offset, c.size FROM chunks AS c"
                " JOIN manifests AS m ON m.id = c.manifest WHERE c.hash = ?"
                " AND (EXISTS (SELECT 1 FROM rows WHERE content = m.prefix"
                " AND generation IN (SELECT number FROM generations))"
                " OR EXISTS (SELECT 1 FROM history WHERE content = m.content))"
                " ORDER BY c.manifest DESC LIMIT ?",
                (chunk[:CHUNK_KEY], SOURCES_PER_CHUNK),
            )
            if found:
                sources[chunk] = [(content, offset, size) for content, offset, size in found]
        return sources

    def prune_manifests(self) -> int:
        """Drop the manifests of contents that are nowhere and wanted nowhere; return how many.

        Reads the whole list of manifests: for quiet moments.
        """
        with self.transaction():
            gone = self._db.all(
                "DELETE FROM manifests WHERE prefix NOT IN"
                " (SELECT content FROM needed WHERE content IS NOT NULL)"
                " AND NOT EXISTS (SELECT 1 FROM rows WHERE content = manifests.prefix"
                " AND generation IN (SELECT number FROM generations))"
                " AND NOT EXISTS (SELECT 1 FROM history WHERE content = manifests.content)"
                " RETURNING id, hashes"
            )
            for number, hashes in gone:
                self._drop_chunks(number, hashes)
        return len(gone)

    def unwanted(self, contents: Iterable[bytes]) -> list[bytes]:
        """Return those contents that no needed path is to show."""
        return [
            content
            for content in contents
            if not self._db.all(
                "SELECT 1 FROM needed WHERE content = ? LIMIT 1", (prefix(content),)
            )
        ]

    def _drop_chunks(self, number: int, hashes: bytes) -> None:
        self._db.many(
            "DELETE FROM chunks WHERE hash = ? AND manifest = ?",
            [(key, number) for key in _chunk_keys(hashes)],
        )

    # ------------------------------------------------------------------ history

    def add_history(
        self, name: bytes, path: bytes, content: bytes, size: int, when_ns: int, reason: str
    ) -> None:
        """Note that a content went into the history as the file `name` there."""
        self._db.run(
            "INSERT INTO history (name, path, content, size, when_ns, reason)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET path = excluded.path,"
            " content = excluded.content, size = excluded.size, when_ns = excluded.when_ns,"
            " reason = excluded.reason",
            (name, path, content, size, when_ns, reason),
        )

    def history_with_content(self, content: bytes) -> list[bytes]:
        """Return names in the history that hold this content, the newest first; a few."""
        found = self._db.all(
            "SELECT name FROM history WHERE content = ? ORDER BY when_ns DESC, name LIMIT ?",
            (content, HISTORY_NAMES),
        )
        return [name for (name,) in found]

    def contents_in_history(self, contents: Iterable[bytes]) -> set[bytes]:
        """Return those of the contents that the history holds; many are asked for at once."""
        found = self._db.all_in(
            "SELECT DISTINCT content FROM history WHERE content IN (?*)", contents
        )
        return {content for (content,) in found}

    def history(
        self, *, path: bytes | None = None, before_ns: int | None = None, limit: int = 1000
    ) -> list[HistoryRecord]:
        """Return what the history holds, the oldest first.

        path: only of this path. before_ns: only what went in earlier.
        """
        end = before_ns if before_ns is not None else (1 << 63) - 1
        if path is None:
            found = self._db.all(
                "SELECT name, path, content, size, when_ns, reason FROM history"
                " WHERE when_ns < ? ORDER BY when_ns, name LIMIT ?",
                (end, limit),
            )
        else:
            found = self._db.all(
                "SELECT name, path, content, size, when_ns, reason FROM history"
                " WHERE path = ? AND when_ns < ? ORDER BY when_ns, name LIMIT ?",
                (path, end, limit),
            )
        return [HistoryRecord(*record) for record in found]

    def remove_history(self, names: Iterable[bytes]) -> None:
        """Forget these names of the history; their files are gone already."""
        with self.transaction():
            self._db.many("DELETE FROM history WHERE name = ?", [(name,) for name in names])


def _chunk_keys(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + CHUNK_KEY] for at in range(0, len(hashes), CONTENT_BYTES)]
