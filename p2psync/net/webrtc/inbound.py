"""The receiving half of an association: packets in any order to messages in theirs.

Pure, and bounded: what a peer may leave open, out of order or unfinished, has limits, beyond
which it is a `Violation`.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from p2psync.net.webrtc.packets import BINARY, FIRST, LAST, UNORDERED, Data, unwrapped
from p2psync.protocol import limits

AHEAD: Final = 8 * limits.MIB  # out of order
_AHEAD_PACKETS: Final = 8 * limits.KIB


class Violation(Exception):  # noqa: N818 - what the peer did, not what went wrong here
    """The peer sent what none of us sends."""


class Inbound:
    """What has arrived of one stream of messages."""

    def __init__(self, last: int, message_bytes: int) -> None:
        """last: the number before the peer's first packet. message_bytes: the longest."""
        self.last = last  # all up to this one have arrived
        self.unsaid = 0  # packets that no SACK has acknowledged
        self.urgent = False  # does the peer wait for a SACK, since something is missing?
        self._message_bytes = message_bytes
        self._ahead: dict[int, Data] = {}
        self._ahead_bytes = 0
        self._ranges: list[list[int]] = []  # of the numbers in _ahead: first, last, rising
        self._pieces: list[bytes] = []  # of the message that is under way
        self._pieces_bytes = 0

    def take(self, data: Data) -> list[bytes]:
        """Take one packet; return the messages it completes.

        Raises:
            Violation: another stream or protocol, a message too long or not begun, a packet
                too far ahead.
        """
        tsn = unwrapped(data.tsn, self.last)
        if data.stream or data.protocol != BINARY or data.flags & UNORDERED:
            raise Violation("something else than a stream of binary messages")
        self.unsaid += 1
        if tsn <= self.last or tsn in self._ahead:
            self.urgent = True  # our SACK was lost, perhaps
            return []
        if tsn != self.last + 1:
            self._keep(tsn, data)
            return []
        messages: list[bytes] = []
        self._append(data, messages)
        if self._ahead:
            self._catch_up(messages)
        return messages

    def gaps(self) -> list[tuple[int, int]]:
        """Return the ranges that arrived out of order, counted from `last`."""
        return [
            (first - self.last, end - self.last)
            for first, end in self._ranges
            if end - self.last < 2**16
        ]

    def said(self) -> None:
        """A SACK was sent."""
        self.unsaid = 0
        self.urgent = bool(self._ranges)

    def _append(self, data: Data, messages: list[bytes]) -> None:
        self.last += 1
        if bool(data.flags & FIRST) == bool(self._pieces) or not data.payload:
            raise Violation("a piece of no message")
        self._pieces.append(data.payload)
        self._pieces_bytes += len(data.payload)
        if self._pieces_bytes > self._message_bytes:
            raise Violation("a message that is too long")
        if data.flags & LAST:
            messages.append(b"".join(self._pieces))
            self._pieces.clear()
            self._pieces_bytes = 0

    def _keep(self, tsn: int, data: Data) -> None:
        self._ahead[tsn] = data
        self._ahead_bytes += len(data.payload)
        if tsn - self.last > _AHEAD_PACKETS or self._ahead_bytes > AHEAD:
            raise Violation("too much out of order")
        self.urgent = True
        ranges = self._ranges
        at = bisect_left(ranges, [tsn])
        if at and ranges[at - 1][1] == tsn - 1:
            ranges[at - 1][1] = tsn
            if at < len(ranges) and ranges[at][0] == tsn + 1:
                ranges[at - 1][1] = ranges.pop(at)[1]
        elif at < len(ranges) and ranges[at][0] == tsn + 1:
            ranges[at][0] = tsn
        else:
            ranges.insert(at, [tsn, tsn])

    def _catch_up(self, messages: list[bytes]) -> None:
        """Take what waits behind the gap that was just filled."""
        if self._ranges[0][0] != self.last + 1:
            return
        first, end = self._ranges.pop(0)
        for tsn in range(first, end + 1):
            data = self._ahead.pop(tsn)
            self._ahead_bytes -= len(data.payload)
            self._append(data, messages)
        self.urgent = True
