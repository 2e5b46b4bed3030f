"""What a mailbox is to this room: a place where who knows a slot leaves and finds messages.

`discovery.mailbox.MdnsMailbox` is one, for the local network.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol


class Kept(Protocol):
    """A message that was put somewhere."""

    async def withdraw(self) -> None:
        """Take it out again; idempotent."""
        ...


class Mailbox(Protocol):
    """Carries small messages between devices that have no channel; proves nothing."""

    async def put(self, slot: str, data: bytes, ttl_s: float = ...) -> Kept:
        """Put a message into a slot for a number of seconds.

        Raises:
            OSError: there is no network to do it on.
        """
        ...

    def watch(self, slot: str) -> AsyncGenerator[bytes, None]:
        """Yield what others put into the slot, also before now, each message once."""
        ...
