"""The sending half of an association: messages to packets, again where one is lost.

Pure: time is an argument. A packet is lost when one sent after it was acknowledged and more
than a round trip and a little has passed (RACK, RFC 8985); nothing is walked through per SACK
but what it newly acknowledges. aiortc looks at every packet under way for every SACK, which is
half of its time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Final

from p2psync.net.webrtc.congestion import Congestion, Sample
from p2psync.net.webrtc.packets import FIRST, LAST, Packets, Sack, unwrapped

_RTO_FIRST_S: Final = 1.0
_RTO_LEAST_S: Final = 0.2  # as Linux has it; SCTP's own second is an age where a tail is lost
_RTO_MOST_S: Final = 10.0
_REORDER_LEAST_S: Final = 0.001
_CATCH_UP_S: Final = 0.005  # how much lateness of ours is made up for in one burst


class Sent:
    """A packet under way, and how things stood when it left."""

    __slots__ = (
        "again",
        "at",
        "delivered",
        "delivered_at",
        "left_at",
        "limited",
        "order",
        "packet",
        "tsn",
    )

    def __init__(self, tsn: int, packet: bytearray) -> None:
        self.tsn = tsn
        self.packet = packet
        self.again = False
        self.at = 0.0
        self.order = 0
        self.delivered = 0
        self.delivered_at = 0.0
        self.left_at = 0.0
        self.limited = False


class Outbound:
    """What is to be sent, and what is under way."""

    def __init__(self, packets: Packets, first: int, payload: int) -> None:
        """first: the number of the first packet. payload: bytes in one packet."""
        self.payload = payload
        self.congestion = Congestion()
        self._packets = packets
        self._queue: deque[bytes] = deque()
        self._at = 0  # of the first message in the queue, what is cut off
        self._number = 0  # of messages
        self._next = first
        self._acked = first - 1
        self._told: dict[int, int] = {}  # the ranges above _acked, by the last SACK
        self._flying: dict[int, Sent] = {}  # in the order of leaving
        self._flight = 0  # bytes
        self._lost: dict[int, Sent] = {}
        self._orders = 0
        self._newest = 0  # order of the last to leave of those acknowledged
        self._newest_rtt = 0.0
        self._delivered = 0
        self._delivered_at = 0.0
        self._left_at = 0.0  # when the newest of those acknowledged left
        self._limited_until = 0  # so much delivered: what we sent was less than could be
        self._rtt: float | None = None
        self._rtt_varies = 0.0
        self._timeouts = 0
        self._probes = 0  # packets that may leave whatever the window says
        self._may_leave_at = 0.0
        self._due = math.inf

    # what the layer above wants

    def put(self, message: bytes) -> None:
        """Queue one message."""
        self._queue.append(message)

    @property
    def idle(self) -> bool:
        """True when everything was acknowledged."""
        return not (self._queue or self._flying or self._lost)

    # what leaves

    def packets(self, now: float, most: int) -> tuple[list[bytearray], int]:
        """Return up to so many packets that may leave now, and how many bytes were cut off.

        The bytes are those of messages that have left the queue with them, as a whole.
        """
        leaving: list[bytearray] = []
        cut = 0
        while len(leaving) < most and self._may_leave(now):
            if self._lost:
                sent = self._lost.pop(next(iter(self._lost)))
                sent.again = True
            elif self._queue:
                sent, whole = self._cut()
                cut += whole
            else:
                self._limited_until = self._delivered + self._flight or 1
                break
            self._leaves(now, sent)
            leaving.append(sent.packet)
        if leaving:
            self._set_due(now)
        return leaving, cut

    def _may_leave(self, now: float) -> bool:
        if self._probes:
            self._probes -= 1
            return True
        return self._flight < self.congestion.window and now >= self._may_leave_at

    def _cut(self) -> tuple[Sent, int]:
        message, at = self._queue[0], self._at
        end = at + self.payload
        flags = 0 if at else FIRST
        whole = 0
        if end >= len(message):
            flags |= LAST
            whole = len(message)
        piece = memoryview(message)[at:end]
        sent = Sent(self._next, self._packets.data(self._next, flags, self._number, piece))
        self._next += 1
        self._at = end
        if whole:
            self._queue.popleft()
            self._at = 0
            self._number += 1
        return sent, whole

    def _leaves(self, now: float, sent: Sent) -> None:
        if not self._flying:
            self._delivered_at = self._left_at = now
        self._orders += 1
        sent.order = self._orders
        sent.at = now
        sent.delivered = self._delivered
        sent.delivered_at = self._delivered_at
        sent.left_at = self._left_at
        sent.limited = self._delivered < self._limited_until
        self._flying[sent.tsn] = sent
        size = len(sent.packet)
        self._flight += size
        earliest = max(self._may_leave_at, now - _CATCH_UP_S)
        self._may_leave_at = earliest + size / self.congestion.rate

    @property
    def blocked_until(self) -> float:
        """When the next packet may leave by itself; inf: when a SACK says so, or never."""
        waits = (self._queue or self._lost) and self._flight < self.congestion.window
        return self._may_leave_at if waits else math.inf

    # what comes back

    def acknowledged(self, now: float, sack: Sack) -> None:
        """Take a SACK."""
        tsn = unwrapped(sack.tsn, self._acked)
        if not self._acked <= tsn < self._next:
            return  # old, or of what was never sent
        if not all(0 < first <= last < self._next - tsn for first, last in sack.gaps):
            return
        newest: Sent | None = None
        size = 0
        for arrived in self._arrived(tsn, sack.gaps):
            size += len(arrived.packet)
            if newest is None or arrived.order > newest.order:
                newest = arrived
        self._acked = tsn
        self._told = {tsn + first: tsn + last for first, last in sack.gaps}
        if newest is not None:
            self._timeouts = 0
            self._measure(now, newest, size)
        self._find_lost(now)
        self._set_due(now)

    def _arrived(self, tsn: int, gaps: list[tuple[int, int]]) -> Iterator[Sent]:
        yield from self._pop(self._acked + 1, tsn)
        for first, last in gaps:
            start = tsn + first
            yield from self._pop(self._told.get(start, start - 1) + 1, tsn + last)

    def _pop(self, first: int, last: int) -> Iterator[Sent]:
        for tsn in range(first, last + 1):
            sent = self._flying.pop(tsn, None)
            if sent is not None:
                self._flight -= len(sent.packet)
                yield sent
            elif self._lost and (sent := self._lost.pop(tsn, None)) is not None:
                yield sent

    def _measure(self, now: float, newest: Sent, size: int) -> None:
        self._delivered += size
        self._delivered_at = now
        rtt = now - newest.at
        # of a packet sent twice nobody knows which of them arrived
        sure = not newest.again or rtt >= self.congestion.rtt
        if sure and newest.order > self._newest:
            self._newest = newest.order
            self._newest_rtt = rtt
            self._left_at = newest.at
        took = max(newest.at - newest.left_at, now - newest.delivered_at)
        delivered = self._delivered - newest.delivered
        sample = Sample(
            rate=delivered / took if took > 0 and sure else None,
            rtt=None if newest.again else rtt,
            delivered=self._delivered,
            delivered_then=newest.delivered,
            limited=newest.limited,
            flight=self._flight,
        )
        if sample.rtt is not None:
            self._smooth(rtt)
        self.congestion.acknowledged(now, size, sample)

    def _smooth(self, rtt: float) -> None:
        if self._rtt is None:
            self._rtt, self._rtt_varies = rtt, rtt / 2
        else:
            self._rtt_varies += (abs(self._rtt - rtt) - self._rtt_varies) / 4
            self._rtt += (rtt - self._rtt) / 8

    # what is lost

    def _reorder(self) -> float:
        return max(self._newest_rtt / 4, _REORDER_LEAST_S)

    def _find_lost(self, now: float) -> None:
        before = now - self._newest_rtt - self._reorder()
        lost = []
        for sent in self._flying.values():
            if sent.order > self._newest or sent.at > before:
                break
            lost.append(sent)
        self._give_up(lost)

    def _give_up(self, lost: list[Sent]) -> None:
        for sent in lost:
            size = len(sent.packet)
            del self._flying[sent.tsn]
            self._lost[sent.tsn] = sent
            self._flight -= size
            self.congestion.lost(size)

    def _set_due(self, now: float) -> None:
        if not self._flying:
            self._due = math.inf
            return
        oldest = next(iter(self._flying.values()))
        if oldest.order <= self._newest:
            self._due = oldest.at + self._newest_rtt + self._reorder()
        else:
            base = _RTO_FIRST_S if self._rtt is None else self._rtt + 4 * self._rtt_varies
            patience = max(_RTO_LEAST_S, base) * 2**self._timeouts
            self._due = oldest.at + min(patience, _RTO_MOST_S)

    @property
    def due(self) -> float:
        """When to call `expired`; inf: never, as things are."""
        return self._due

    def expired(self, now: float) -> None:
        """The time of `due` has come: nothing was heard, or what came last leaves a doubt."""
        if not self._flying:
            return
        oldest = next(iter(self._flying.values()))
        if oldest.order <= self._newest:
            self._find_lost(now)
        else:
            # first one packet, whose SACK tells what else is missing; then all of them
            everything = self._timeouts > 0
            self._give_up(list(self._flying.values()) if everything else [oldest])
            self._timeouts = min(self._timeouts + 1, 16)
            self._probes = 1
            if everything:
                self.congestion.timed_out()
        self._set_due(now)
