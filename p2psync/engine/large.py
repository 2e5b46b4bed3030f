"""Fetching one large content: its manifest, then the chunks nobody has here.

A manifest is only what a peer says. Chunks are believed when they hash to what it says, the
file when the whole hashes to what the entry says; a manifest that nobody can fulfil, or whose
file is another, is forgotten, and others are asked for theirs (fault T26). What was assembled
stays in staging, so that a transfer resumes over any number of sessions and starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from p2psync.core.index import Want
from p2psync.core.observed import Manifest
from p2psync.engine.apply import Applied
from p2psync.engine.link import Link
from p2psync.engine.owner import UNANSWERED, Owner
from p2psync.errors import ChannelClosedError, IntegrityError, RemoteProtocolError
from p2psync.fs.partial import Partial
from p2psync.protocol import limits

CHUNK_ASKS_AT_ONCE = 6
HASH = 32

Chunk = tuple[int, int, bytes]  # offset, size, BLAKE3-256


class LargeFetcher:
    """Fetches the large contents of one replica.

    Args:
        replica: whose.
        source: returns a peer to ask for a content; None: nobody is left.
    """

    def __init__(self, replica: Owner, source: Callable[[bytes], Link | None]) -> None:
        self._replica = replica
        self._source = source
        self._givers: dict[bytes, Link] = {}  # who sent the manifest of what is under way

    async def fetch(
        self, first: Link, content: bytes, size: int, wants: Mapping[bytes, Want]
    ) -> Applied | None:
        """Fetch a content and apply it; None: it cannot be had now.

        Args:
            first: the peer asked for the manifest.
            content: BLAKE3-256 of the whole.
            size: in bytes, as announced.
            wants: the path to apply it to.

        Raises:
            ChannelClosedError: the peer left.
            OSError: the disk does not take it.
        """
        try:
            manifest = await self._manifest(first, content, size)
            if manifest is None:
                return None
            partial = await asyncio.to_thread(self._replica.stock.root.partial, content, size)
            try:
                if not await self._assemble(content, manifest, partial):
                    await self._doubt(content)
                    return None
                applied = await self._replica.apply(wants, {}, {content: partial})
            finally:
                await asyncio.to_thread(partial.close)
            if content in applied.false:
                self._accuse(content)
                await self._doubt(content)
            return applied
        finally:
            self._givers.pop(content, None)
            self._replica.stock.received.pop(content, None)

    async def _manifest(self, link: Link, content: bytes, size: int) -> Manifest | None:
        """Return the manifest known here, or the one this peer gives; None: it has none."""
        stock = self._replica.stock
        known = await self._replica.worker(stock.index.manifest, content)
        if known is not None:
            return known
        try:
            manifest = await self._manifest_of(link, content, size)
        except RemoteProtocolError as error:
            link.conversation.fail(str(error))
            manifest = None
        if manifest is None:
            link.gone.add(content)
        else:
            self._givers[content] = link
            await self._replica.worker(stock.index.put_manifests, [(content, manifest)])
        return manifest

    async def _manifest_of(self, link: Link, content: bytes, size: int) -> Manifest | None:
        """Ask one source; None: it has none, or takes too long over it.

        Raises:
            RemoteProtocolError: the answer is no manifest of a file of this size.
        """
        try:
            answer = await link.manifest(self._replica.folder, content)
        except TimeoutError:  # it may have to read all of a huge file: asked again later
            return None
        if not answer.sizes:
            return None
        manifest = Manifest(answer.hashes, answer.sizes)
        if not adds_up(manifest, size):
            raise RemoteProtocolError("a manifest that does not add up")
        return manifest

    async def _doubt(self, content: bytes) -> None:
        """Nobody has what the manifest says: it may be false, so that others are asked anew."""
        await self._replica.worker(self._replica.stock.index.forget_manifest, content)
        giver = self._givers.get(content)
        for link in self._replica.links:
            if link is not giver:
                link.gone.discard(content)
        if giver is not None:
            giver.gone.add(content)

    def _accuse(self, content: bytes) -> None:
        """Each chunk was as the manifest says, and the file is another: the manifest lies."""
        giver = self._givers.get(content)
        if giver is not None:
            giver.conversation.fail("a manifest of another file than asked for")

    async def _assemble(self, content: bytes, manifest: Manifest, partial: Partial) -> bool:
        """Bring together all chunks; False: no connected peer can give the rest."""
        chunks = chunks_of(manifest)
        left = await asyncio.to_thread(partial.lacks, chunks)
        left = await self._replica.worker(
            self._replica.stock.applier.reuse_chunks, partial, left
        )
        await asyncio.to_thread(partial.check_room, left)
        self._replica.stock.received[content] = sum(manifest.sizes) - sum(
            size for _, size, _ in left
        )
        missing = {chunk[0]: chunk for chunk in left}
        while missing:
            link = self._source(content)
            if link is None:
                return False
            try:
                await self._ask_all(content, partial, missing)
            except ExceptionGroup as errors:
                trouble = errors.subgroup(OSError)
                if trouble is None:
                    raise
                raise trouble.exceptions[0] from errors
        return True

    async def _ask_all(
        self, content: bytes, partial: Partial, missing: dict[int, Chunk]
    ) -> None:
        """Ask once for everything missing, of whoever has it, some requests at a time."""
        slots = asyncio.Semaphore(CHUNK_ASKS_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for portion in portions(missing.values()):
                await slots.acquire()
                link = self._source(content)
                if link is None:
                    break
                group.create_task(
                    self._ask_chunks(link, content, partial, portion, missing, slots)
                )

    async def _ask_chunks(
        self,
        link: Link,
        content: bytes,
        partial: Partial,
        portion: list[Chunk],
        missing: dict[int, Chunk],
        slots: asyncio.Semaphore,
    ) -> None:
        link.open_asks += 1
        asked = {chunk[0]: chunk for chunk in portion}
        try:
            async for answer in link.chunks(self._replica.folder, content, portion):
                if answer.gone:
                    link.gone.add(content)
                for offset, data in answer.chunks:
                    if offset not in asked:
                        raise RemoteProtocolError("a chunk nobody asked for")
                    await asyncio.to_thread(partial.write, asked[offset], data)
                    missing.pop(offset, None)
                    self._replica.stock.received[content] = self._replica.stock.received.get(
                        content, 0
                    ) + len(data)
            if not missing.keys().isdisjoint(asked):
                link.gone.add(content)
        except ChannelClosedError:
            link.gone.add(content)
        except (RemoteProtocolError, IntegrityError, TimeoutError) as error:
            link.gone.add(content)
            link.conversation.fail(str(error) or UNANSWERED)
        finally:
            link.open_asks -= 1
            slots.release()


def adds_up(manifest: Manifest, size: int) -> bool:
    """Say whether a manifest is one of a file of this size, within our limits."""
    count = len(manifest.sizes)
    return (
        count <= limits.CHUNKS_PER_MANIFEST
        and len(manifest.hashes) == HASH * count
        and all(0 < length <= limits.CHUNK_BYTES for length in manifest.sizes)
        and sum(manifest.sizes) == size
    )


def chunks_of(manifest: Manifest) -> list[Chunk]:
    """Return the chunks with their places, in order."""
    chunks: list[Chunk] = []
    offset = 0
    for number, size in enumerate(manifest.sizes):
        chunks.append((offset, size, manifest.hashes[HASH * number : HASH * (number + 1)]))
        offset += size
    return chunks


def portions(chunks: Iterable[Chunk]) -> Iterable[list[Chunk]]:
    """Split chunks into requests of about one pack of bytes."""
    portion: list[Chunk] = []
    total = 0
    for chunk in list(chunks):
        portion.append(chunk)
        total += chunk[1]
        if total >= limits.PACK_BYTES:
            yield portion
            portion, total = [], 0
    if portion:
        yield portion
