"""What every transport gives: ordered messages between two ends, whatever carries them."""

from __future__ import annotations

from typing import Final, Protocol

CLOSE_TIMEOUT_S: Final = 1.0
"""How long `Channel.close` lets sent messages leave."""


class Channel(Protocol):
    """Ordered, reliable, encrypted messages; authenticated by `protocol.auth` inside it.

    Every transport passes `tests/support/channel_contract.py`. A message is 1 byte to
    `limits.MESSAGE_BYTES` long and arrives whole or not at all.
    """

    transport: str
    """The name in `TRANSPORTS`: "memory", "tls" or "webrtc"."""

    address: str
    """Where the other end is, for people: "192.168.1.20:40123"; "" for memory."""

    dialled: bool
    """True on the side that opened it; the two ends always disagree."""

    binding: bytes
    """32 bytes both ends compute alike and no man in the middle can (design 5.3)."""

    def admit(self) -> None:
        """The peer is authenticated: take whole messages and any number of them.

        Until then a channel takes `limits.UNAUTHENTICATED_BYTES` in all, and one that was
        listened for keeps its place among the unauthenticated and its deadline.
        """
        ...

    async def send(self, message: bytes) -> None:
        """Queue one message; return when there is room for the next.

        At most one task sends at a time. Cancelled, the message may still arrive, whole.

        Raises:
            ChannelClosedError: the channel is gone; the message may or may not have arrived.
        """
        ...

    async def receive(self) -> bytes:
        """Return the next message; at most one task receives at a time.

        Cancelled, no message is lost.

        Raises:
            ChannelClosedError: no more messages will come.
            RemoteProtocolError: the peer sent what is not a message (oversized frame).
        """
        ...

    async def close(self) -> None:
        """Close both directions, giving sent messages at most a second to leave; idempotent."""
        ...

    def abort(self, reason: str) -> None:
        """Drop the channel now: what was not sent is lost, and `receive` says the reason."""
        ...
