"""The driver of one session over one channel: reads, writes in order of urgency, keeps time.

Entries, marks and requests are urgent; contents are bulk and go out one message at a time
when nothing urgent waits, so that a small edit overtakes a film. Both queues are short: who
sends waits, and so does, in the end, the disk that was read too fast.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

from p2psync.core.ids import DeviceId
from p2psync.engine.pace import Pace
from p2psync.errors import ChannelClosedError, RemoteProtocolError
from p2psync.net.channel import Channel
from p2psync.protocol.machine import Failed
from p2psync.protocol.messages import Hello, Message
from p2psync.protocol.session import Answered, Closed, Opened, Received, Session, State

logger = logging.getLogger(__name__)

URGENT, PAGES, BULK = 64, 2, 2
PINGS = 16  # asked for at the same time
TAKES_S = 60.0  # how long a peer that talks may take nothing of what we send
FAREWELL_S = 1.0  # how long a goodbye may take to leave

OnMessage = Callable[[Message], Awaitable[None]]


class Conversation:
    """One session with one peer; `run` it, then use `send` once `opened` is done.

    key: under what the indexes keep this peer's cursors: its DeviceId, or another name for a
    second replica on this very device.
    """

    def __init__(self, channel: Channel, peer: DeviceId, key: bytes, hello: Hello) -> None:
        loop = asyncio.get_running_loop()
        self.channel = channel
        self.peer = peer
        self.key = key
        self.opened: asyncio.Future[Hello] = loop.create_future()
        self.opened_at = 0.0
        self.admitted: asyncio.Future[None] = loop.create_future()  # it may stay: use it
        self.pace = Pace()
        self._session = Session(hello, now=_now())
        self._urgent: deque[Message] = deque()
        self._bulk: deque[Message] = deque()
        self._taking = False  # a message waits for its owner, and those behind it with it
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._sending = asyncio.Lock()
        self._over: asyncio.Future[str] = loop.create_future()
        self._pings: dict[int, asyncio.Future[float]] = {}
        self._numbers = itertools.count(1)

    # ------------------------------------------------------------------ using it

    async def send(self, message: Message) -> None:
        """Queue an urgent message; wait while too many are waiting.

        Raises:
            ChannelClosedError: the conversation is over.
        """
        await self._queue(self._urgent, URGENT, message)

    async def send_page(self, message: Message) -> None:
        """Queue a page of entries, urgent too; wait while anything much is waiting.

        64 pages are 30 MiB on the wire and three times that in memory: who told a million
        files took 170 MB for it.
        """
        await self._queue(self._urgent, PAGES, message)

    async def send_bulk(self, message: Message) -> None:
        """Queue a message full of contents; it goes when nothing urgent waits."""
        await self._queue(self._bulk, BULK, message)

    async def _queue(self, queue: deque[Message], room: int, message: Message) -> None:
        while len(queue) >= room and not self._over.done():
            self._room.clear()
            await self._room.wait()
        if self._over.done():
            raise ChannelClosedError(self._over.result())
        queue.append(message)
        self._work.set()

    def next_number(self) -> int:
        """Return a number for a request that no other open request of this session has."""
        return next(self._numbers)

    async def ping(self) -> float:
        """Ask for a sign of life; return the seconds it took.

        Raises:
            ChannelClosedError: the conversation ended before the answer, or is about to, or
                leaves too many pings unanswered.
        """
        if self._over.done():
            raise ChannelClosedError(self._over.result())
        if self._session.state is not State.OPEN or len(self._pings) >= PINGS:
            raise ChannelClosedError("no ping is answered any more")
        loop = asyncio.get_running_loop()
        number = self._session.ping(_now())
        answer: asyncio.Future[float] = loop.create_future()
        self._pings[number] = answer
        self._work.set()
        return await answer

    def close(self, reason: str) -> None:
        """Say goodbye and end; `run` returns soon after, also if the peer takes nothing."""
        self._session.close(reason)
        self._work.set()
        asyncio.get_running_loop().call_later(FAREWELL_S, self.end, reason)

    def fail(self, reason: str) -> None:
        """The peer broke a rule: end at once, and say in the log why."""
        if not self.over:
            logger.warning("session with %s closed: %s", self.peer.short, reason)
        self.end(reason)

    @property
    def rtt_ms(self) -> float | None:
        """The last measured round trip in milliseconds; None: not yet."""
        return None if self._session.rtt is None else self._session.rtt * 1000

    @property
    def was_admitted(self) -> bool:
        """True once it was, or is, the conversation to use."""
        return self.admitted.done() and self.admitted.exception() is None

    @property
    def closing(self) -> bool:
        """True once either side has said goodbye: nothing new is to be begun."""
        return self.over or self._session.state is State.OVER

    @property
    def over(self) -> bool:
        """True once nothing more will be sent or received."""
        return self._over.done()

    # ------------------------------------------------------------------ running it

    async def run(self, on_message: OnMessage) -> str:
        """Hold the conversation to its end; return why it ended. Never raises but on cancel.

        on_message is awaited for each message in order, and may raise RemoteProtocolError.
        """
        tasks = [
            asyncio.create_task(self._read(on_message)),
            asyncio.create_task(self._write()),
            asyncio.create_task(self._keep_time()),
        ]
        try:
            return await asyncio.shield(self._over)
        finally:
            self.end("the agent stops")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(ChannelClosedError):
                await self.channel.close()

    def end(self, reason: str) -> None:
        """End at once, without a word to the peer; harmless when it is over."""
        if self._over.done():
            return
        self._over.set_result(reason)
        self._room.set()
        self._work.set()
        for waited in (self.opened, self.admitted):
            if not waited.done():
                waited.set_exception(ChannelClosedError(reason))
                waited.exception()  # nobody has to wait for it
        for answer in self._pings.values():
            if not answer.done():
                answer.set_exception(ChannelClosedError(reason))
        self._pings.clear()

    async def _read(self, on_message: OnMessage) -> None:
        try:
            while True:
                data = await self.channel.receive()
                self._session.receive_data(data, _now())
                self._work.set()
                self._taking = True
                await self._happened(on_message)
                self._taking = False
        except ChannelClosedError as error:
            self.end(error.reason)
        except RemoteProtocolError as error:
            self.fail(str(error))
        except Exception as error:
            logger.exception("a bug while taking a message of %s", self.peer.short)
            self.end(f"internal error: {error}")

    async def _happened(self, on_message: OnMessage) -> None:
        for event in self._session.events():
            match event:
                case Received(message):
                    await on_message(message)
                case Opened(hello):
                    self.opened_at = asyncio.get_running_loop().time()
                    if not self.opened.done():
                        self.opened.set_result(hello)
                case Answered(number, rtt_s):
                    answer = self._pings.pop(number, None)
                    if answer is not None and not answer.done():
                        answer.set_result(rtt_s)
                case Closed(reason):
                    await self._flush()
                    self.end(reason)
                case Failed(reason):
                    self.fail(reason)

    async def _flush(self) -> None:
        """Let a goodbye of ours leave; the peer's needs no answer."""
        with suppress(ChannelClosedError, RemoteProtocolError):
            async with self._sending:
                for data in self._session.data_to_send():
                    await self._send(data)

    async def _write(self) -> None:
        try:
            while not self._over.done():
                self._work.clear()
                await self._write_all()
                await self._happened(_nobody)
                await self._work.wait()
        except ChannelClosedError as error:
            self.end(error.reason)
        except RemoteProtocolError as error:
            self.fail(str(error))
        except Exception as error:
            logger.exception("a bug while sending to %s", self.peer.short)
            self.end(f"internal error: {error}")

    async def _write_all(self) -> None:
        while True:
            if self._session.state is State.OPEN:
                queue = self._urgent or self._bulk
                if queue:
                    self._session.send(queue.popleft())
                    self._room.set()
            async with self._sending:
                out = self._session.data_to_send()
                if not out:
                    return
                for data in out:
                    await self._send(data)

    async def _send(self, data: bytes) -> None:
        """Send one message.

        Raises:
            ChannelClosedError: the channel is gone.
            RemoteProtocolError: the peer takes nothing. The session itself notices that only
                when something waits in it; a peer that goes on talking is never pinged.
        """
        try:
            async with asyncio.timeout(TAKES_S):
                began = _now()
                await self.channel.send(data)
                self.pace.sent(len(data), _now() - began)
        except TimeoutError as error:
            raise RemoteProtocolError("the peer takes nothing") from error

    async def _keep_time(self) -> None:
        while (deadline := self._session.next_deadline()) is not None:
            await asyncio.sleep(max(0.0, deadline - _now()))
            self._session.handle_deadline(_now())
            if self._taking:  # the peer is not silent, we do not listen
                self._session.note_received(_now())
            self._work.set()
            await self._happened(_nobody)


def _now() -> float:
    """Return the session's time: a loop's own may stand still for milliseconds (uvloop)."""
    return time.monotonic()


async def _nobody(message: Message) -> None:
    raise AssertionError("messages come only from the reader")
