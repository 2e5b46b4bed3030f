"""Getting what is needed: choosing, asking whoever has it, handing it to the applier.

Small contents travel whole, many in one answer, which is applied as one batch; large ones
are assembled chunk by chunk in staging, reusing chunks that other files here already hold, and
what was assembled survives a restart. Smaller comes first, so that a fresh note does not wait
for a film.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from blake3 import blake3

from p2psync.core.entry import Kind
from p2psync.core.index import Want
from p2psync.core.observed import Manifest
from p2psync.engine.apply import Applied
from p2psync.engine.link import Link
from p2psync.engine.stock import Stock
from p2psync.engine.worker import Worker
from p2psync.errors import ChannelClosedError, IntegrityError, RemoteProtocolError
from p2psync.fs.ground import problem_of
from p2psync.fs.partial import Partial
from p2psync.protocol import limits
from p2psync.protocol.messages import Files

logger = logging.getLogger(__name__)

WINDOW = 4_096
PACKS_AT_ONCE = 4  # of one peer
PACK_FILES = 1_000
LARGE_AT_ONCE = 2  # first asked of one peer
CHUNK_ASKS_AT_ONCE = 6
RETRY_S = 30.0
UNANSWERED = "it does not answer what it is asked"
HASH = 32

Chunk = tuple[int, int, bytes]  # offset, size, BLAKE3-256


class Owner(Protocol):
    """What fetching needs of the replica it works for."""

    folder: bytes
    links: list[Link]
    stock: Stock
    worker: Worker

    @property
    def may_apply(self) -> bool:
        """False while nothing may be changed on the disk."""
        ...

    async def apply(
        self,
        wants: Mapping[bytes, Want],
        data: Mapping[bytes, bytes],
        large: Mapping[bytes, Partial],
    ) -> Applied:
        """Apply one batch; see `Applier.apply`."""
        ...

    def took(self, applied: Applied) -> None:
        """Keep what a batch came to."""
        ...


@dataclass
class Chosen:
    """What one look at the needs found: what can be applied now, and what must be fetched."""

    now: dict[bytes, Want] = field(default_factory=dict)
    small: dict[bytes, int] = field(default_factory=dict)
    large: dict[bytes, int] = field(default_factory=dict)
    paths: dict[bytes, dict[bytes, Want]] = field(default_factory=dict)


class Fetcher:
    """The fetching task of one replica."""

    def __init__(self, replica: Owner) -> None:
        self._replica = replica
        self.wake = asyncio.Event()
        self._in_flight: set[bytes] = set()
        self._packs: set[asyncio.Task[None]] = set()
        self._retry_at: dict[bytes, float] = {}
        self._givers: dict[bytes, Link] = {}  # who sent the manifest of what is under way
        self.received: dict[bytes, int] = {}  # bytes assembled of large contents under way

    async def run(self) -> None:
        """Fetch and apply for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                self.wake.clear()
                busy = self._replica.may_apply and await self._round(group)
                if not busy:
                    await self._rest()

    async def _rest(self) -> None:
        soonest = min(self._retry_at.values(), default=None)
        timeout = None if soonest is None else max(0.05, soonest - time.monotonic())
        try:
            async with asyncio.timeout(timeout):
                await self.wake.wait()
        except TimeoutError:
            now = time.monotonic()
            self._retry_at = {p: at for p, at in self._retry_at.items() if at > now}

    def retry_soon(self, paths: Iterable[bytes]) -> None:
        """The cause of these paths' trouble may be gone."""
        for path in paths:
            self._retry_at.pop(path, None)
        self.wake.set()

    # ------------------------------------------------------------------ one round

    async def _round(self, group: asyncio.TaskGroup) -> bool:
        """Apply what is at hand, start fetching what is not; False: nothing to do now."""
        chosen = await self._replica.worker(self._choose)
        if chosen.now:
            applied = await self._replica.apply(chosen.now, {}, {})
            self.took(applied)
            if applied.done:
                return True
        # what was not done waits for a content that is still elsewhere (a loser for its winner)
        started = self._start_packs(group, chosen) + self._start_large(group, chosen)
        if not started and not self._packs:
            return False
        if self._packs:
            await self._pack_or_news()
        return bool(started or self._packs)

    async def _pack_or_news(self) -> None:
        """Wait for a pack; a peer that lets us wait for one does not keep us from the rest."""
        news = asyncio.create_task(self.wake.wait())
        try:
            await asyncio.wait({*self._packs, news}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()

    def _choose(self) -> Chosen:
        """Look at the needs, smallest first; in the worker thread."""
        replica = self._replica
        excluded = len(self._retry_at) + len(self._in_flight) + self._unavailable()
        chosen = Chosen()
        for path, want in replica.stock.index.needed(
            limit=WINDOW + excluded, smallest_first=True
        ):
            if path in self._retry_at:
                continue
            place = want.place
            if place is None or place.kind is not Kind.FILE:
                chosen.now[path] = want
                continue
            content = place.content
            if content in self._in_flight:
                continue
            if replica.stock.applier.at_hand(content):
                chosen.now[path] = want
            else:
                kind = chosen.small if place.size <= limits.SMALL_FILE else chosen.large
                kind[content] = place.size
                chosen.paths.setdefault(content, {})[path] = want
        return chosen

    def _unavailable(self) -> int:
        return max((len(link.gone) for link in self._replica.links), default=0)

    def took(self, applied: Applied) -> None:
        """Note what a batch could not do, and when to try again."""
        later = time.monotonic() + RETRY_S
        for problem in applied.problems:
            self._retry_at[problem.path] = later
        for path in applied.rescan:
            self._retry_at[path] = time.monotonic() + 0.2
        self._replica.took(applied)

    def _source(
        self, content: bytes, fits: Callable[[Link], bool] = lambda link: True
    ) -> Link | None:
        """The least busy connected peer that has not said it lacks the content, and fits."""
        links = [
            link for link in self._replica.links if content not in link.gone and fits(link)
        ]
        return min(links, key=lambda link: link.open_asks, default=None)

    # ------------------------------------------------------------------ small files

    def _start_packs(self, group: asyncio.TaskGroup, chosen: Chosen) -> int:
        started = 0
        waiting = iter(chosen.small.items())
        while True:
            link, pack = self._next_pack(waiting)
            if link is None:
                break
            wants = {content: chosen.paths[content] for content in pack}
            self._in_flight.update(pack)
            link.packs += 1
            task = group.create_task(self._fetch_pack(link, wants))
            self._packs.add(task)
            task.add_done_callback(self._packs.discard)
            started += 1
        return started

    def _next_pack(
        self, waiting: Iterable[tuple[bytes, int]]
    ) -> tuple[Link | None, list[bytes]]:
        link: Link | None = None
        pack: list[bytes] = []
        size = 0
        for content, length in waiting:
            source = self._source(content, lambda link: link.packs < PACKS_AT_ONCE)
            if source is None or (link is not None and content in link.gone):
                continue
            link = link or source
            pack.append(content)
            size += length
            if size >= limits.PACK_BYTES or len(pack) == PACK_FILES:
                break
        return link, pack

    async def _fetch_pack(self, link: Link, wants: dict[bytes, dict[bytes, Want]]) -> None:
        link.open_asks += 1
        left = set(wants)
        try:
            data: dict[bytes, bytes] = {}
            async for answer in link.files(self._replica.folder, list(wants)):
                link.gone.update(answer.gone)
                data |= true_files(answer, wants)
                if answer.last or sum(map(len, data.values())) >= limits.PACK_BYTES:
                    await self._apply_files(data, wants)
                    left.difference_update(data)
                    data = {}
            link.gone.update(left)  # asked again at once, they would be left out again
        except ChannelClosedError:
            logger.debug("a peer left while it was giving files")
        except (RemoteProtocolError, TimeoutError) as error:
            link.conversation.fail(str(error) or UNANSWERED)
        finally:
            link.open_asks -= 1
            link.packs -= 1
            self._in_flight.difference_update(wants)
            self.wake.set()

    async def _apply_files(
        self, data: dict[bytes, bytes], wants: dict[bytes, dict[bytes, Want]]
    ) -> None:
        batch = {path: want for content in data for path, want in wants[content].items()}
        if batch:
            self.took(await self._replica.apply(batch, data, {}))
        self._in_flight.difference_update(data)

    # ------------------------------------------------------------------ large files

    def _start_large(self, group: asyncio.TaskGroup, chosen: Chosen) -> int:
        started = 0
        for content, size in chosen.large.items():
            link = self._source(content, lambda link: link.larges < LARGE_AT_ONCE)
            if link is None:
                continue
            self._in_flight.add(content)
            link.larges += 1
            path, want = next(iter(chosen.paths[content].items()))
            group.create_task(self._fetch_large(link, content, size, {path: want}))
            started += 1
        return started

    async def _fetch_large(
        self, first: Link, content: bytes, size: int, wants: dict[bytes, Want]
    ) -> None:
        try:
            manifest = await self._manifest(first, content, size)
            if manifest is None:
                return
            partial = await asyncio.to_thread(self._replica.stock.root.partial, content, size)
            try:
                if not await self._assemble(content, manifest, partial):
                    await self._doubt(content)
                    return
                applied = await self._replica.apply(wants, {}, {content: partial})
                self.took(applied)
                if content in applied.false:
                    self._accuse(content)
                    await self._doubt(content)
                    self.retry_soon(wants)
            finally:
                await asyncio.to_thread(partial.close)
        except ChannelClosedError:
            logger.debug("a peer left while it was giving chunks")
        except OSError as error:
            path = next(iter(wants))
            self.took(Applied(problems=[problem_of(path, error)]))
        finally:
            first.larges -= 1
            self._in_flight.discard(content)
            self._givers.pop(content, None)
            self.received.pop(content, None)
            self.wake.set()

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
        self.received[content] = sum(manifest.sizes) - sum(size for _, size, _ in left)
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
                    self.received[content] = self.received.get(content, 0) + len(data)
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


def true_files(answer: Files, wanted: Collection[bytes]) -> dict[bytes, bytes]:
    """Return those files of an answer that were asked for, by content.

    Raises:
        RemoteProtocolError: bytes do not hash to what they are said to be.
    """
    data = {content: data for content, data in answer.files if content in wanted}
    if any(blake3(data[content]).digest() != content for content in data):
        raise RemoteProtocolError("bytes of another file than asked for")
    return data


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
