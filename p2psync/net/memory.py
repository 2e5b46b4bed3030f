"""The memory transport: two channel ends in one process, bounded both ways.

It joins two folders of one agent, and everything above the transports in tests.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from p2psync.errors import ChannelClosedError, LocalProtocolError
from p2psync.net.inbox import Inbox
from p2psync.protocol import limits

_ROOM: Final = 1 * limits.MIB  # waiting bytes above which the sender waits


def memory_pair() -> tuple[MemoryChannel, MemoryChannel]:
    """Return the two ends of a new channel: the dialling one, then the other."""
    binding = secrets.token_bytes(32)
    dialled, listened = MemoryChannel(True, binding), MemoryChannel(False, binding)
    dialled.other, listened.other = listened, dialled
    return dialled, listened


class MemoryChannel:
    """One end; made by `memory_pair`."""

    transport = "memory"
    address = ""
    other: MemoryChannel

    def __init__(self, dialled: bool, binding: bytes) -> None:
        """Make an end that `memory_pair` joins to its other."""
        self.dialled = dialled
        self.binding = binding
        self._inbox = Inbox(self._taken)
        self._room = asyncio.Event()  # is there room in the other's inbox?
        self._room.set()
        self._closed = False

    def admit(self) -> None:
        """Nothing to lift: both ends are this process."""

    async def send(self, message: bytes) -> None:
        """Give the message to the other end; wait until it has room for the next."""
        if not 1 <= len(message) <= limits.MESSAGE_BYTES:
            raise LocalProtocolError(f"a message of {len(message)} bytes")
        await self._wait_for_room()
        self.other._arrive(message)
        await self._wait_for_room()

    async def receive(self) -> bytes:
        """Return the next message the other end sent."""
        return await self._inbox.get()

    async def close(self) -> None:
        """Close both directions; the other end still receives what was sent."""
        self._inbox.discard()
        self.abort("closed here")

    def abort(self, reason: str) -> None:
        """Close both directions; nothing is under way that could be lost."""
        if self._closed:
            return
        self._closed = True
        self._inbox.end(lambda: ChannelClosedError(reason))
        self._room.set()
        self.other._inbox.end(lambda: ChannelClosedError("closed by the peer"))
        self.other._room.set()

    async def _wait_for_room(self) -> None:
        await self._room.wait()
        if self._closed or self.other._closed:
            raise ChannelClosedError("closed")

    def _arrive(self, message: bytes) -> None:
        self._inbox.put(message)
        if self._inbox.waiting_bytes > _ROOM:
            self.other._room.clear()

    def _taken(self) -> None:
        if self._inbox.waiting_bytes <= _ROOM:
            self.other._room.set()
