"""Fetching one large content: its manifest, the chunks that files here hold, then the rest.

A manifest is only what a peer says. Chunks are believed when they hash to what it says, the
file when the whole hashes to what the entry says; a manifest that nobody can fulfil, or whose
file is another, is forgotten, and others are asked for theirs (fault T26). What was assembled
stays in staging, so that a transfer resumes over any number of sessions and starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from p2psync.core.index import Want
from p2psync.core.manifests import chunks_of, combined
from p2psync.core.observed import Manifest
from p2psync.engine.apply import Applied
from p2psync.engine.link import Link
from p2psync.engine.owner import UNANSWERED, Owner
from p2psync.engine.reuse import Copy, copies, manifest_here
from p2psync.errors import ChannelClosedError, IntegrityError, RemoteProtocolError
from p2psync.fs.partial import Partial
from p2psync.fs.pieces import Chunk
from p2psync.protocol import limits

CHUNK_ASKS_AT_ONCE = 6
COPIES_AT_ONCE = 2
LOOKED_UP_AT_ONCE = 1_000  # chunks, in one unit of the worker
HASH = 32


class LargeFetcher:
    """Fetches the large contents of one replica.

    Args:
        replica: whose.
        source: returns a peer to ask for a content; None: nobody is left.
    """

    def __init__(self, replica: Owner, source: Callable[[bytes], Link | None]) -> None:
        self._replica = replica
        self._source = source
        self._writing = asyncio.Semaphore(1)  # more threads wait for each other: 5.6 s, not 4.6
        self._givers: dict[bytes, Link] = {}  # who sent the manifest of what is under way
        self._bases: dict[bytes, bytes] = {}  # and on which other content it was built

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
            manifest = await self._manifest(first, content, size, wants)
            if manifest is None:
                return None
            partial = await asyncio.to_thread(self._replica.stock.root.partial, content, size)
            try:
                if not await self._assemble(content, manifest, partial):
                    await self._doubt(content)
                    return None
                await asyncio.to_thread(partial.settle)  # not in the worker: it takes long
                applied = await self._replica.apply(wants, {}, {content: partial})
            finally:
                await asyncio.to_thread(partial.close)
            if content in applied.false:
                self._accuse(content)
                await self._doubt(content)
            return applied
        finally:
            self._givers.pop(content, None)
            self._bases.pop(content, None)
            self._replica.stock.received.pop(content, None)

    async def _manifest(
        self, link: Link, content: bytes, size: int, wants: Iterable[bytes]
    ) -> Manifest | None:
        """Return the manifest known here, or the one this peer gives; None: it has none."""
        stock = self._replica.stock
        known = await self._replica.worker(stock.index.manifest, content)
        if known is not None:
            return known
        base = await self._replica.worker(self._base, wants)
        try:
            manifest = await self._manifest_of(link, content, size, base)
        except RemoteProtocolError as error:
            link.conversation.fail(str(error))
            manifest = None
        if manifest is None:
            link.gone.add(content)
        else:
            self._givers[content] = link
            await self._replica.worker(stock.index.put_manifests, [(content, manifest)])
        return manifest

    def _base(self, wants: Iterable[bytes]) -> tuple[bytes, Manifest] | None:
        """Return what stands at a path now, if it is large too: it may differ by little."""
        index = self._replica.stock.index
        for path, row in index.rows(wants).items():
            content, size = row.place.content, row.place.size
            if limits.SMALL_FILE < size <= limits.WHOLE_FILE:  # it may have come whole
                known = manifest_here(index, self._replica.stock.root, content, path)
            else:
                known = index.manifest(content)
            if known is not None:
                return row.place.content, known
        return None

    async def _manifest_of(
        self, link: Link, content: bytes, size: int, base: tuple[bytes, Manifest] | None
    ) -> Manifest | None:
        """Ask one source; None: it has none, or takes too long over it.

        base: a content known here, and its manifest, on which the answer may build.

        Raises:
            RemoteProtocolError: the answer is no manifest of a file of this size.
        """
        named, known = base or (None, Manifest(b"", []))
        self._bases.pop(content, None)
        try:
            answer = await link.manifest(self._replica.folder, content, named)
        except TimeoutError:  # it may have to read all of a huge file: asked again later
            return None
        manifest: Manifest | None = Manifest(answer.hashes, answer.sizes)
        if answer.spans and manifest is not None:
            most = limits.CHUNKS_PER_MANIFEST
            manifest = await asyncio.to_thread(combined, known, manifest, answer.spans, most)
            if named is not None:
                self._bases[content] = named
        elif not answer.sizes:
            return None
        if manifest is None or not adds_up(manifest, size):
            raise RemoteProtocolError("a manifest that does not add up")
        return manifest

    async def _doubt(self, content: bytes) -> None:
        """Nobody has what the manifest says: it may be false, so that others are asked anew.

        So may be the one it was built on: the next is asked for whole.
        """
        index, base = self._replica.stock.index, self._bases.get(content)
        for doubted in {content, base or content}:
            await self._replica.worker(index.forget_manifest, doubted)
        giver = self._givers.get(content)
        for link in self._replica.links:
            if base is not None or link is not giver:
                link.gone.discard(content)
        if giver is not None and base is None:
            giver.gone.add(content)

    def _accuse(self, content: bytes) -> None:
        """Each chunk was as the manifest says, and the file is another: the manifest lies.

        Its giver is only sure to be the liar when it gave the whole of it.
        """
        giver = self._givers.get(content)
        if giver is not None and content not in self._bases:
            giver.conversation.fail("a manifest of another file than asked for")

    async def _assemble(self, content: bytes, manifest: Manifest, partial: Partial) -> bool:
        """Bring together all chunks; False: no connected peer can give the rest."""
        left = await asyncio.to_thread(partial.lacks, chunks_of(manifest))
        await asyncio.to_thread(partial.check_room, left)
        self._replica.stock.received[content] = sum(manifest.sizes) - sum(
            size for _, size, _ in left
        )
        missing = {chunk[0]: chunk for chunk in left}
        here, elsewhere = await self._sources_here(left)
        try:
            async with asyncio.TaskGroup() as group:  # in step, so that it is hashed on the way
                group.create_task(self._copy_all(content, partial, here, missing))
                group.create_task(self._ask_all(content, partial, elsewhere, missing))
            while missing:
                if self._source(content) is None:
                    return False
                await self._ask_all(content, partial, list(missing.values()), missing)
        except ExceptionGroup as errors:
            raise _disk_error(errors) from errors
        return True

    async def _sources_here(self, left: list[Chunk]) -> tuple[list[Copy], list[Chunk]]:
        """Return what can be copied on this disk, and the chunks that cannot."""
        here: list[Copy] = []
        elsewhere: list[Chunk] = []
        for start in range(0, len(left), LOOKED_UP_AT_ONCE):
            some = left[start : start + LOOKED_UP_AT_ONCE]
            found = await self._replica.worker(copies, self._replica.stock.index, some)
            here += found[0]
            elsewhere += found[1]
        return here, elsewhere

    async def _copy_all(
        self, content: bytes, partial: Partial, here: list[Copy], missing: dict[int, Chunk]
    ) -> None:
        """Copy what is here; what turns out to be something else stays missing."""
        waiting = iter(here)

        async def copy_some() -> None:
            for copy in waiting:
                taken = await asyncio.to_thread(copy.take, partial)
                self._arrived(content, [missing.pop(offset) for offset in taken])

        async with asyncio.TaskGroup() as group:
            for _ in range(COPIES_AT_ONCE):
                group.create_task(copy_some())

    def _arrived(self, content: bytes, chunks: Iterable[Chunk]) -> None:
        received = self._replica.stock.received
        received[content] = received.get(content, 0) + sum(size for _, size, _ in chunks)

    async def _ask_all(
        self,
        content: bytes,
        partial: Partial,
        chunks: list[Chunk],
        missing: dict[int, Chunk],
    ) -> None:
        """Ask once for these chunks, of whoever has them, some requests at a time."""
        slots = asyncio.Semaphore(CHUNK_ASKS_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for portion in portions(chunks):
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
                if any(offset not in asked for offset, _ in answer.chunks):
                    raise RemoteProtocolError("a chunk nobody asked for")
                pieces = [(asked[offset], data) for offset, data in answer.chunks]
                async with self._writing:
                    await asyncio.to_thread(partial.write, pieces)
                for chunk, _ in pieces:
                    missing.pop(chunk[0], None)
                self._arrived(content, [chunk for chunk, _ in pieces])
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


def portions(chunks: list[Chunk]) -> Iterable[list[Chunk]]:
    """Split chunks into requests of about one pack of bytes."""
    portion: list[Chunk] = []
    total = 0
    for chunk in chunks:
        portion.append(chunk)
        total += chunk[1]
        if total >= limits.PACK_BYTES:
            yield portion
            portion, total = [], 0
    if portion:
        yield portion


def _disk_error(errors: ExceptionGroup[Exception]) -> Exception:
    """Return the trouble with the disk among these; anything else is a bug, and stays whole."""
    trouble: Exception | None = errors.subgroup(OSError)
    while isinstance(trouble, ExceptionGroup):
        trouble = trouble.exceptions[0]
    return trouble or errors
