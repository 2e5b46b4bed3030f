"""Giving contents to a peer that asks (content-truth: what is sent for hash h hashes to h).

Bytes are read from where a row says the content stands and hashed before they leave; what
does not hash right any more is "gone", and the path is looked at again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass

from p2psync.core.manifests import difference
from p2psync.core.observed import Manifest as KnownManifest
from p2psync.engine.pace import Pace
from p2psync.engine.reuse import manifest_here
from p2psync.engine.worker import Worker
from p2psync.errors import RemoteProtocolError
from p2psync.fs.hashing import Parents, read_chunks, read_file
from p2psync.fs.pieces import Chunk
from p2psync.fs.root import Root
from p2psync.protocol import limits
from p2psync.protocol.messages import AskChunks, AskFiles, AskManifest, Chunks, Files, Manifest
from p2psync.store.index import Index

EDIT_FILES = 2  # 256 KiB at most, which is 21 ms at 100 Mbit/s


@dataclass
class Provider:
    """Answers one replica's peers. doubted: paths that were not what their row says."""

    index: Index
    root: Root
    worker: Worker

    def __post_init__(self) -> None:
        self.doubted: set[bytes] = set()

    async def answers(
        self, ask: AskFiles | AskManifest | AskChunks, pace: Pace
    ) -> AsyncIterator[Files | Manifest | Chunks]:
        """Yield the answers to one request, in order, as large as suits the peer's line."""
        match ask:
            case AskFiles():
                async for files in self.files(ask, pace):
                    yield files
            case AskChunks():
                async for chunks in self.chunks(ask, pace):
                    yield chunks
            case AskManifest():
                yield await self.manifest(ask)

    async def files(self, ask: AskFiles, pace: Pace) -> AsyncIterator[Files]:
        """Yield the answers to one request for whole files, the last marked so."""
        contents = list(dict.fromkeys(ask.contents))
        places = await self.worker(self._places, contents)
        waiting = iter(contents)
        while True:
            try:
                answer = await asyncio.to_thread(
                    self._read, ask.request, waiting, places, pace.answer_bytes
                )
            except OSError:  # the root was closed
                answer = Files(ask.request, [], list(waiting), True)
            yield answer
            if answer.last:
                return

    def _places(self, contents: Iterable[bytes]) -> dict[bytes, list[bytes]]:
        return {
            content: [path for path, _ in self.index.rows_with_content(content)]
            for content in contents
        }

    def _read(
        self,
        request: int,
        contents: Iterator[bytes],
        places: Mapping[bytes, list[bytes]],
        enough: int,
    ) -> Files:
        """Read files until there are enough bytes for an answer, or none is left."""
        files: list[tuple[bytes, bytes]] = []
        gone: list[bytes] = []
        size = 0
        with self.root.in_use(), Parents(self.root) as parents:
            for content in contents:
                data = self._read_one(parents, content, places[content])
                if data is None:
                    gone.append(content)
                    continue
                files.append((content, data))
                size += len(data)
                if size >= enough:
                    return Files(request, files, gone, False)
        return Files(request, files, gone, True)

    def _read_one(self, parents: Parents, content: bytes, where: list[bytes]) -> bytes | None:
        for path in where:
            data = read_file(parents, path, content)
            if data is not None:
                return data
            self.doubted.add(path)
        return None

    async def manifest(self, ask: AskManifest) -> Manifest:
        """Return the manifest asked for; an empty one when the content is not here."""
        known = await self.worker(self._manifest, ask.content)
        if known is None:
            return Manifest(ask.request, b"", [])
        base = None if ask.base is None else await self.worker(self.index.manifest, ask.base)
        if base is None:
            return Manifest(ask.request, known.hashes, known.sizes)
        fresh, spans = await asyncio.to_thread(difference, base, known)
        return Manifest(ask.request, fresh.hashes, fresh.sizes, spans)

    def _manifest(self, content: bytes) -> KnownManifest | None:
        rows = self.index.rows_with_content(content)
        if not rows:
            return None
        known = manifest_here(self.index, self.root, content, rows[0][0])
        if known is None:
            self.doubted.add(rows[0][0])
        return known

    async def chunks(self, ask: AskChunks, pace: Pace) -> AsyncIterator[Chunks]:
        """Yield the answers to one request for chunks, the last marked so.

        When one chunk is not here, the rest is not even looked for.

        Raises:
            RemoteProtocolError: a chunk is larger than any we have.
        """
        places = await self.worker(self._places, [ask.content])
        where = places[ask.content]
        done = 0
        for pack in packs(ask.chunks, pace):
            done += len(pack)
            last = done == len(ask.chunks)
            answer = await self._pack(ask.request, pack, where, last=last)
            if answer.gone:
                left = [wanted[0] for wanted in ask.chunks[done:]]
                yield Chunks(ask.request, [], answer.gone + left, True)
                return
            yield answer

    async def _pack(
        self, request: int, pack: list[Chunk], where: list[bytes], *, last: bool
    ) -> Chunks:
        for path in where:
            found = await asyncio.to_thread(read_chunks, self.root, path, pack)
            chunks = [
                (w[0], data) for w, data in zip(pack, found, strict=True) if data is not None
            ]
            if len(chunks) == len(pack):
                return Chunks(request, chunks, [], last)
            self.doubted.add(path)
        return Chunks(request, [], [wanted[0] for wanted in pack], last)


def packs(chunks: Iterable[Chunk], pace: Pace) -> Iterator[list[Chunk]]:
    """Split chunks into answers that fit into a message; one at least, be it empty.

    Raises:
        RemoteProtocolError: a chunk is larger than any we have.
    """
    pack: list[Chunk] = []
    size = 0
    for wanted in chunks:
        if wanted[1] > limits.CHUNK_BYTES:
            raise RemoteProtocolError("a request for a chunk larger than any")
        if pack and size + wanted[1] > pace.answer_bytes:
            yield pack
            pack, size = [], 0
        pack.append(wanted)
        size += wanted[1]
    yield pack


def nothing(message: AskFiles | AskManifest | AskChunks) -> Files | Manifest | Chunks:
    """Return the answer of a replica that cannot give anything now."""
    match message:
        case AskFiles():
            return Files(message.request, [], message.contents, True)
        case AskManifest():
            return Manifest(message.request, b"", [])
        case AskChunks():
            return Chunks(message.request, [], [chunk[0] for chunk in message.chunks], True)


def is_edit(ask: AskFiles | AskManifest | AskChunks) -> bool:
    """Say whether so little is asked for that it may overtake contents: a file just saved."""
    return isinstance(ask, AskFiles) and len(ask.contents) <= EDIT_FILES


def content_bytes(answer: Files | Manifest | Chunks) -> int:
    """Return how many bytes of contents an answer carries."""
    match answer:
        case Files():
            return sum(len(data) for _, data in answer.files)
        case Chunks():
            return sum(len(data) for _, data in answer.chunks)
        case Manifest():
            return 0
