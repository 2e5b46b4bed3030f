"""What a peer sent, from bytes to the messages that wait to be received.

`Inbox` keeps whole messages in order, counted, and never loses one. `Intake` makes them out of
a stream, and until the peer is authenticated only one at a time: what it sent right behind its
proof is not judged by the rules for strangers, and a stranger makes us hold little.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from p2psync.errors import ChannelClosedError, P2PSyncError, RemoteProtocolError
from p2psync.protocol import limits
from p2psync.protocol.framing import FrameReader


def _nothing() -> None:
    """Nobody wants to know."""


class Inbox:
    """The receiving half of a channel: a transport puts, one task gets.

    It only counts; a transport that has put too much is the one to stop its peer.
    """

    def __init__(
        self, on_taken: Callable[[], None] = _nothing, on_wanted: Callable[[], None] = _nothing
    ) -> None:
        """on_taken: a message was received. on_wanted: somebody waits, and there is none."""
        self.waiting_bytes = 0
        self._messages: deque[bytes] = deque()
        self._on_taken = on_taken
        self._on_wanted = on_wanted
        self._waiter: asyncio.Future[None] | None = None
        self._end: Callable[[], P2PSyncError] | None = None

    @property
    def ended(self) -> bool:
        """True when nothing more will be put."""
        return self._end is not None

    def put(self, message: bytes) -> None:
        """Add a message; after the end it is dropped."""
        if self._end is None:
            self._messages.append(message)
            self.waiting_bytes += len(message)
            self._wake()

    def end(self, error: Callable[[], P2PSyncError]) -> None:
        """Nothing more comes: `get` raises what error makes, once all before it is taken."""
        if self._end is None:
            self._end = error
            self._wake()

    def discard(self) -> None:
        """Drop what waits and end: the channel was closed on this side."""
        self._messages.clear()
        self.waiting_bytes = 0
        self._end = lambda: ChannelClosedError("closed here")
        self._wake()

    async def get(self) -> bytes:
        """Wait for the next message; cancelled, it stays for the next call.

        Raises:
            P2PSyncError: what `end` was given, when all messages before it are taken.
        """
        if not self._messages:
            self._on_wanted()
        while not self._messages:
            if self._end is not None:
                raise self._end()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = self._messages.popleft()
        self.waiting_bytes -= len(message)
        self._on_taken()
        return message

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Intake:
    """Cuts the stream of one peer into the messages of an inbox."""

    def __init__(self, on_change: Callable[[], None], violated: Callable[[str], None]) -> None:
        """on_change: `waiting_bytes` or `holding` may be less now. violated: told once."""
        self.inbox = Inbox(on_change, self._wanted)
        self._on_change = on_change
        self._violated = violated
        self._frames = FrameReader()
        self._allowance: int | None = limits.UNAUTHENTICATED_BYTES  # None: admitted
        self._held = b""
        self._looking = True  # is the next message of a stranger of interest?

    @property
    def waiting_bytes(self) -> int:
        """What was fed and not received, the beginning of an unfinished message apart."""
        return self.inbox.waiting_bytes + len(self._held)

    @property
    def holding(self) -> bool:
        """True while a stranger has sent more than is looked at yet: feed no more."""
        return bool(self._held)

    def admit(self) -> None:
        """The peer is authenticated: messages of any size, as many as come."""
        self._allowance = None
        self._frames.limit = limits.MESSAGE_BYTES
        held, self._held = self._held, b""
        self.feed(held)
        self._on_change()

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        try:
            if self._allowance is None:
                for message in self._frames.feed(data):
                    self.inbox.put(message)
            else:
                self._held += data
                if self._looking:
                    self._look_at_one()
        except RemoteProtocolError as error:
            self._violated(str(error))

    def _look_at_one(self) -> None:
        """Look for one message of a stranger, byte by byte, and leave the rest alone."""
        assert self._allowance is not None
        for at in range(len(self._held)):
            if at == self._allowance:
                raise RemoteProtocolError("too much before it was authenticated")
            if messages := self._frames.feed(self._held[at : at + 1]):
                self._looking = False
                self._take(at + 1)
                self.inbox.put(messages[0])
                return
        self._take(len(self._held))

    def _take(self, count: int) -> None:
        assert self._allowance is not None
        self._allowance -= count
        self._held = self._held[count:]

    def _wanted(self) -> None:
        self._looking = True
        if self._held:
            self.feed(b"")
            self._on_change()
