"""The two halves of an association over a line made of nothing but numbers: no message is lost
or changed whatever the line does, and the line is used. Time is simulated, chance is seeded."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.net.webrtc.congestion import LEAST_WINDOW, Congestion, Sample
from p2psync.net.webrtc.inbound import Inbound, Violation
from p2psync.net.webrtc.outbound import Outbound
from p2psync.net.webrtc.packets import (
    BINARY,
    FIRST,
    LAST,
    MODULO,
    UNORDERED,
    Data,
    Packets,
    Sack,
    unwrapped,
)

PORT, PAYLOAD, MESSAGE = 5000, 1_384, 65_536
FIRST_TSN = MODULO - 300  # so that the numbers wrap
TICK_S = 0.002


class Line(NamedTuple):
    """What carries packets one way; SACKs come back with the same delay and loss."""

    rate: float  # bytes per second
    rtt: float
    queue: float = math.inf  # bytes
    loss: float = 0.0
    jitter: float = 0.0  # seconds, by which packets overtake each other
    twice: float = 0.0  # how many arrive a second time


class World:
    """Simulated time, and the line that all who live in it share."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.now = 0.0
        self.free_at = 0.0  # the line
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, when: float, event: Callable[[], None]) -> None:
        """Let something happen then."""
        heapq.heappush(self._events, (when, next(self._numbers), event))

    def step(self) -> None:
        """Let the next thing happen."""
        self.now, _, event = heapq.heappop(self._events)
        event()


class Wire:
    """A sender, a receiver and the line between them."""

    def __init__(self, line: Line | World, seed: int = 1) -> None:
        self.world = line if isinstance(line, World) else World(line)
        self.line = self.world.line
        self.received: list[bytes] = []
        self.most_queued = 0.0
        self.carried = 0
        self.packets = Packets(PORT, 7, 7)
        self.outbound = Outbound(self.packets, FIRST_TSN, PAYLOAD)
        self.inbound = Inbound(FIRST_TSN - 1, MESSAGE)
        self._rng = random.Random(seed)
        self._timer: float = math.inf

    @property
    def now(self) -> float:
        """The time."""
        return self.world.now

    def run(self, until: Callable[[], bool]) -> None:
        """Let time pass until something holds."""
        self.push()
        while not until():
            self.world.step()

    def push(self) -> None:
        """Send what may leave, as the channel does it."""
        while packets := self.outbound.packets(self.now, 32)[0]:
            for packet in packets:
                self._carry(bytes(packet))
        at = max(min(self.outbound.due, self.outbound.blocked_until), self.now + TICK_S)
        if at < self._timer:
            self._timer = at
            self.world.at(at, self._ring)

    def _ring(self) -> None:
        if self.now >= self._timer:
            self._timer = math.inf
            if self.now >= self.outbound.due:
                self.outbound.expired(self.now)
            self.push()

    def _carry(self, packet: bytes) -> None:
        line, rng = self.line, self._rng
        waits = max(0.0, self.world.free_at - self.now)
        self.most_queued = max(self.most_queued, waits * line.rate)
        if rng.random() < line.loss or waits * line.rate > line.queue:
            return
        self.carried += len(packet)
        self.world.free_at = self.now + waits + len(packet) / line.rate
        for _ in range(1 + (rng.random() < line.twice)):
            arrives = self.world.free_at + line.rtt / 2 + rng.random() * line.jitter
            self.world.at(arrives, lambda: self._arrive(packet))

    def _arrive(self, packet: bytes) -> None:
        data = self.packets.read(packet)
        assert isinstance(data, Data)
        self.received += self.inbound.take(data)
        if self.inbound.urgent or self.inbound.unsaid >= 16:
            self._say()
        elif self.inbound.unsaid == 1:
            self.world.at(self.now + 0.001, self._say)

    def _say(self) -> None:
        if self.inbound.unsaid and self._rng.random() >= self.line.loss:
            sack = bytes(self.packets.sack(self.inbound.last, 0, self.inbound.gaps()))
            self.world.at(self.now + self.line.rtt / 2, lambda: self._heard(sack))
        self.inbound.said()

    def _heard(self, packet: bytes) -> None:
        sack = self.packets.read(packet)
        assert isinstance(sack, Sack)
        self.outbound.acknowledged(self.now, sack)
        self.push()


def carry(line: Line, messages: list[bytes], seed: int = 1) -> Wire:
    """Send messages over a line; return when everything has arrived and is acknowledged."""
    wire = Wire(line, seed)
    for message in messages:
        wire.outbound.put(message)
    wire.run(lambda: wire.outbound.idle)
    return wire


def bulk(size: int) -> list[bytes]:
    """Return messages with so many bytes in all."""
    return [bytes(MESSAGE)] * (size // MESSAGE)


LAN = Line(rate=100e6, rtt=0.0004)
HOME = Line(rate=12.5e6, rtt=0.04, queue=500_000)


@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.01, 0.03, 0.3]),
    jitter=st.sampled_from([0.0, 0.001, 0.05]),
    twice=st.sampled_from([0.0, 0.1]),
    queue=st.sampled_from([20_000.0, math.inf]),
    sizes=st.lists(st.integers(1, MESSAGE), max_size=12),
)
def test_whatever_the_line_does_all_arrives_in_order(
    seed: int, loss: float, jitter: float, twice: float, queue: float, sizes: list[int]
) -> None:
    """Lost, late, doubled and overtaken packets change nothing about the messages."""
    rng = random.Random(seed)
    messages = [rng.randbytes(size) for size in sizes]
    line = Line(5e6, 0.03, queue=queue, loss=loss, jitter=jitter, twice=twice)
    assert carry(line, messages, seed).received == messages


@pytest.mark.parametrize(
    ("line", "used"),
    [
        (LAN, 0.9),
        (HOME, 0.9),
        (HOME._replace(rtt=0.1, queue=2_000_000), 0.8),
        (HOME._replace(rtt=0.05, loss=0.005), 0.8),
        (HOME._replace(rtt=0.05, loss=0.02), 0.8),
        (Line(100e3, 0.1, queue=64_000), 0.85),
    ],
)
@pytest.mark.slow
def test_the_line_is_used(line: Line, used: float) -> None:
    """Long and short, fast and slow, with random loss or without: what the line gives, goes."""
    size = int(line.rate * 4)
    wire = carry(line, bulk(size))
    assert size / wire.now > used * line.rate


@pytest.mark.slow
def test_a_message_put_in_late_waits_little() -> None:
    """Of a queue that could hold a second, little more than half a round trip is used."""
    line = HOME._replace(queue=12.5e6)
    wire = Wire(line)
    for message in bulk(40_000_000):
        wire.outbound.put(message)
    wire.run(lambda: wire.now > 2)
    wire.most_queued = 0
    wire.run(lambda: wire.outbound.idle)
    assert wire.most_queued < 0.6 * line.rate * line.rtt


@pytest.mark.slow
def test_two_share_a_line() -> None:
    """Who comes later gets its share of the line within seconds, and nobody all of it."""
    world = World(HOME)
    early, late = Wire(world, 1), Wire(world, 2)
    for wire in (early, late):
        for message in bulk(150_000_000):
            wire.outbound.put(message)
    early.run(lambda: world.now > 2)
    before = early.outbound._delivered
    late.run(lambda: world.now > 10)
    got = [early.outbound._delivered - before, late.outbound._delivered]
    assert min(got) > 0.5 * max(got)
    assert sum(got) > 0.9 * 8 * HOME.rate


@pytest.mark.slow
def test_who_loses_much_gives_way() -> None:
    """Where a queue is so short that a tenth is lost, less is sent until it is not."""
    line = HOME._replace(queue=15_000)
    wire = carry(line, bulk(30_000_000))
    assert wire.outbound._orders * PAYLOAD < 1.15 * 30_000_000


def test_nothing_is_sent_into_silence_but_a_probe() -> None:
    """When nothing comes back, one packet leaves per timeout, at growing distances."""
    outbound = Outbound(Packets(PORT, 7, 7), FIRST_TSN, PAYLOAD)
    for message in bulk(10_000_000):
        outbound.put(message)
    while outbound.packets(0.0, 32)[0]:
        pass
    times = []
    for _ in range(6):
        now = outbound.due
        outbound.expired(now)
        left = 0
        while packets := outbound.packets(now, 32)[0]:
            left += len(packets)
        times.append(now)
        assert 0 < left * PAYLOAD <= LEAST_WINDOW
    pauses = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert pauses[-1] > 2 * pauses[0]


def test_a_sack_that_cannot_be_true_changes_nothing() -> None:
    """Old ones, ones about packets never sent, and gaps beyond them are not looked at."""
    wire = Wire(LAN)
    for message in bulk(500_000):
        wire.outbound.put(message)
    assert len(wire.outbound.packets(0.0, 8)[0]) == 8
    sent = set(wire.outbound._flying)
    first = FIRST_TSN % MODULO
    for sack in (
        Sack(first - 2, []),
        Sack(first + 100, []),
        Sack((first + 2**31) % MODULO, []),
        Sack(first - 1, [(1, 65_535)] * 100),
        Sack(first - 1, [(3, 2)]),
        Sack(first - 1, [(0, 4)]),
        Sack(first - 1, [(2, 9)]),
    ):
        wire.outbound.acknowledged(0.1, sack)
        assert set(wire.outbound._flying) == sent
    wire.outbound.acknowledged(0.1, Sack(first - 1, [(2, 8)]))
    assert set(wire.outbound._flying) == {FIRST_TSN}


WHOLE = Data(FIRST_TSN, FIRST | LAST, 0, BINARY, b"x")


@pytest.mark.parametrize(
    "packets",
    [
        [WHOLE._replace(stream=1)],
        [WHOLE._replace(protocol=51)],
        [WHOLE._replace(flags=FIRST | LAST | UNORDERED)],
        [WHOLE._replace(payload=b"")],
        [WHOLE._replace(flags=LAST)],
        [WHOLE._replace(flags=FIRST), WHOLE._replace(tsn=FIRST_TSN + 1)],
        [WHOLE._replace(flags=FIRST, payload=bytes(MESSAGE + 1))],
        [WHOLE._replace(tsn=FIRST_TSN + 8_193)],
        [WHOLE._replace(tsn=(FIRST_TSN + 2 * n + 1) % MODULO) for n in range(1, 4_097)],
    ],
)
def test_t10_what_no_peer_of_ours_sends_is_a_violation(packets: list[Data]) -> None:
    """Another stream, a piece of no message, too much of one, or too far ahead."""
    inbound = Inbound(FIRST_TSN - 1, MESSAGE)
    for packet in packets[:-1]:
        inbound.take(packet)
    with pytest.raises(Violation):
        inbound.take(packets[-1])


@given(st.lists(st.integers(1, 400), max_size=60))
def test_a_sack_tells_exactly_what_has_arrived(numbers: list[int]) -> None:
    """However packets overtake each other, the ranges are those of the numbers that came."""
    inbound = Inbound(FIRST_TSN, MESSAGE)
    came = set()
    for number in numbers:
        came.add(FIRST_TSN + number)
        inbound.take(WHOLE._replace(tsn=(FIRST_TSN + number) % MODULO))
    ranges = [range(first, last + 1) for first, last in inbound.gaps()]
    told = {inbound.last + n for found in ranges for n in found}
    assert told == {tsn for tsn in came if tsn > inbound.last}
    assert all(a[-1] + 1 < b[0] for a, b in itertools.pairwise(ranges))
    assert inbound.last + 1 not in came


@given(st.integers(0, MODULO - 1), st.integers(-(2**31), 2**31 - 1), st.integers(0, 9))
def test_numbers_wrap(near: int, away: int, rounds: int) -> None:
    """A number in a packet is the nearest of those that are written so."""
    near += rounds * MODULO
    assert unwrapped((near + away) % MODULO, near) == near + away


@given(st.binary(max_size=80))
def test_t11_no_packet_breaks_the_reader(packet: bytes) -> None:
    """What is not sound is nothing, whatever it is."""
    assert Packets(PORT, 7, 7).read(packet) is None


def test_the_model_finds_the_line_anew_when_it_becomes_faster() -> None:
    """What was measured lasts ten rounds, so that a line that grows is used soon."""
    model = Congestion()
    delivered = 0

    def rounds(count: int, rate: float) -> None:
        nonlocal delivered
        for n in range(count):
            then, delivered = delivered, delivered + int(rate * 0.05)
            sample = Sample(rate, 0.05, delivered, then, False, 0)
            model.acknowledged(n * 0.05, delivered - then, sample)

    rounds(20, 1e6)
    assert model.bandwidth == 1e6
    rounds(1, 2e6)
    assert model.bandwidth == 2e6
    rounds(12, 0.5e6)
    assert model.bandwidth == 0.5e6
    assert model.window < 0.5e6 * 0.05 * 2
