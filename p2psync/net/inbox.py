"""Messages that arrived and wait to be received: in order, counted, and never lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from p2psync.errors import ChannelClosedError, P2PSyncError


class Inbox:
    """The receiving half of a channel: a transport puts, one task gets.

    It only counts; a transport that has put too much is the one to stop its peer.
    """

    def __init__(self, on_taken: Callable[[int], None] | None = None) -> None:
        """Start empty; on_taken hears the size of each message as it is received."""
        self.waiting_bytes = 0
        self._messages: deque[bytes] = deque()
        self._on_taken = on_taken
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
        if self._on_taken is not None:
            self._on_taken(len(message))
        return message

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
