"""One folder of one conversation: its exchange, its sender and its open requests."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from p2psync.engine.exchange import Exchange
from p2psync.errors import ChannelClosedError, RemoteProtocolError
from p2psync.protocol.messages import (
    AskChunks,
    AskFiles,
    AskManifest,
    Chunks,
    Entries,
    Files,
    Manifest,
    Message,
)

if TYPE_CHECKING:
    from p2psync.engine.conversation import Conversation
    from p2psync.engine.worker import Worker

logger = logging.getLogger(__name__)

Answer = Files | Manifest | Chunks
ANSWERS_WAITING = 4
ANSWER_S = 60.0  # how long requests may go without any answer
LONGEST_S = 3_600.0  # how long one may, while others are answered: a slow line takes its time
NEED_EVERY_S = 0.25  # how often a peer is told nothing but how much is still lacking here
TURNS = 2  # messages of one peer that wait to be taken
# Requests of one peer for which contents are read at the same time. Those for chunks of large
# files wait in a row of their own: six of 2 MiB take a second at 100 Mbit/s.
BATCH_S = 30.0
PAGE_S = 2.0  # a scan that finds a move tells it in units of a tenth of that
GIVING_AT_ONCE = 4


class Batch:
    """The batch of entries a peer is sending, which a mark will end.

    Until then it may have told half of a move: what stands here already and is wanted
    elsewhere can wait, so that it is moved and not copied. But not for ever: for BATCH_S at
    most, and only while pages keep coming.
    """

    def __init__(self) -> None:
        self._began = math.inf
        self._page_at = -math.inf

    @contextmanager
    def page(self) -> Iterator[None]:
        """Note that a page of it is being taken in."""
        self._began = min(self._began, time.monotonic())
        self._page_at = math.inf
        try:
            yield
        finally:
            self._page_at = time.monotonic()

    def end(self) -> None:
        """Note that the mark came."""
        self._began, self._page_at = math.inf, -math.inf

    @property
    def until(self) -> float:
        """How long to wait for the end, by the monotonic clock."""
        return min(self._began + BATCH_S, self._page_at + PAGE_S)


class Link:
    """What a replica and one of its connected peers are to each other.

    A request's answers come through `answers`; everything else goes through the replica's
    inbox. `gone` holds contents the peer said it cannot give; it is emptied when the peer's
    own need changes.
    """

    def __init__(self, conversation: Conversation, exchange: Exchange, worker: Worker) -> None:
        self.conversation = conversation
        self.exchange = exchange
        self.wake = asyncio.Event()
        self.batch = Batch()
        self.gone: set[bytes] = set()
        self.open_asks = 0  # ours, not answered yet
        self.answering = 0  # theirs, not answered yet
        self.packs = 0  # of those, for small files
        self.larges = 0  # contents it was asked for the manifest of, under way
        self.relisted_at = -math.inf
        self.turns = asyncio.Semaphore(TURNS)
        self.giving = asyncio.Semaphore(GIVING_AT_ONCE)  # all but chunks
        self.giving_chunks = asyncio.Semaphore(GIVING_AT_ONCE)  # none but these
        self._worker = worker
        self._answers: dict[int, asyncio.Queue[Answer | None]] = {}
        self._answered_at = -math.inf
        self._closed = False

    async def send_entries(self) -> None:
        """Tell the peer all there is to tell, and again whenever `wake` is set; never returns.

        Raises:
            ChannelClosedError: the conversation is over.
        """
        loop = asyncio.get_running_loop()
        sent_at = -math.inf
        while True:
            self.wake.clear()
            unfinished = True
            while unfinished:
                often = loop.time() >= sent_at + NEED_EVERY_S
                messages = await self._worker(self.exchange.next_messages, often=often)
                for message in messages:
                    sent_at = loop.time()
                    if isinstance(message, Entries):
                        await self.conversation.send_page(message)
                    else:
                        await self.conversation.send(message)
                unfinished = bool(messages) or self.exchange.more
            with suppress(TimeoutError):
                async with asyncio.timeout(NEED_EVERY_S if self.exchange.held_back else None):
                    await self.wake.wait()

    async def files(self, folder: bytes, contents: list[bytes]) -> AsyncIterator[Files]:
        """Ask for whole small files; yield the answers as they come.

        Raises:
            ChannelClosedError: the conversation is over.
            RemoteProtocolError: something else was answered.
            TimeoutError: nothing was, for a minute.
        """
        number = self.conversation.next_number()
        async for answer in self._ask(number, AskFiles(number, folder, contents)):
            if not isinstance(answer, Files):
                raise RemoteProtocolError("another answer than asked for")
            yield answer
            if answer.last:
                return

    async def manifest(self, folder: bytes, content: bytes, base: bytes | None) -> Manifest:
        """Ask for a large file's manifest, that of base being known here; raises as `files`."""
        number = self.conversation.next_number()
        async for answer in self._ask(number, AskManifest(number, folder, content, base)):
            if not isinstance(answer, Manifest):
                raise RemoteProtocolError("another answer than asked for")
            return answer
        raise ChannelClosedError("closed while asking")

    async def chunks(
        self, folder: bytes, content: bytes, wanted: list[tuple[int, int, bytes]]
    ) -> AsyncIterator[Chunks]:
        """Ask for (offset, size, hash) of a large file; yields and raises as `files`."""
        number = self.conversation.next_number()
        async for answer in self._ask(number, AskChunks(number, folder, content, wanted)):
            if not isinstance(answer, Chunks):
                raise RemoteProtocolError("another answer than asked for")
            yield answer
            if answer.last:
                return

    async def _ask(self, number: int, request: Message) -> AsyncIterator[Answer]:
        if self._closed:
            raise ChannelClosedError("closed before asking")
        queue: asyncio.Queue[Answer | None] = asyncio.Queue(ANSWERS_WAITING)
        self._answers[number] = queue
        try:
            await self.conversation.send(request)
            while True:
                answer = await self._next(queue)
                if answer is None:
                    raise ChannelClosedError("closed while asking")
                yield answer
        finally:
            self._answers.pop(number, None)
            while not queue.empty():
                queue.get_nowait()  # a reader may be waiting with more than was asked for

    async def _next(self, queue: asyncio.Queue[Answer | None]) -> Answer | None:
        """Wait for the next answer to one request.

        Raises:
            TimeoutError: none comes, and none to any other request either.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            try:
                async with asyncio.timeout(ANSWER_S):
                    return await queue.get()
            except TimeoutError:
                now = loop.time()
                if now - max(began, self._answered_at) >= ANSWER_S or now - began > LONGEST_S:
                    raise

    async def take_answer(self, answer: Answer) -> bool:
        """Hand an answer to whoever asked over this link; False: nobody did.

        Waits while the asker is busy with earlier answers: that is the back-pressure.
        """
        queue = self._answers.get(answer.request)
        if queue is None:
            return False
        self._answered_at = asyncio.get_running_loop().time()
        await queue.put(answer)
        return True

    def close(self) -> None:
        """End all open requests."""
        self._closed = True
        for queue in self._answers.values():
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)
