"""How much may be under way, and how fast it may leave: a model of the path, as BBR makes it.

Reno, which SCTP prescribes, takes every lost packet for a full queue: at 50 ms and 0.5 % of
random loss it sends 0.5 MB/s whatever the line could carry, and without loss it fills every
queue there is, behind which a small edit then waits. This follows BBR (draft-cardwell-iccrg-
bbr-congestion-control-00), which the kernel's TCP can use too: it measures the highest rate of
delivery of late and the shortest round trip, and keeps about as much under way as fits between
the two. Where a tenth of what is sent is lost in a round, it gives way all the same.

Sizes in bytes, times in seconds on one monotonic clock, rates in bytes per second.
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum, auto
from typing import Final, NamedTuple

PACKET: Final = 1_404  # the largest payload
FIRST_WINDOW: Final = 16 * PACKET
LEAST_WINDOW: Final = 4 * PACKET
MOST_WINDOW: Final = 4 * 1024 * 1024  # as much as the channel lets be under way
# On top of the model, since one SACK stands for many packets and comes a little late.
_AGGREGATE: Final = 32 * PACKET
_AGGREGATE_S: Final = 0.003
_SHORTEST_RTT_S: Final = 0.002  # below, it is the two programs that take the time, not the path

_STARTUP_GAIN: Final = 2.885  # 2 / ln 2: the rate doubles with every round
_WINDOW_GAIN: Final = 1.5  # at most half a round trip's worth waits in the network
_MARGIN: Final = 0.98  # SACKs come in bunches, which makes the highest rate a little too high
_CYCLE: Final = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)  # of rate, one round trip each
_DOWN: Final = 1  # the step that empties the queue, and lasts until it has
_DOWN_RTTS: Final = 4
_RATE_ROUNDS: Final = 10  # how long a measured rate counts
_FULL: Final = 1.25  # a line that is not full yet gives so much more in the next round
_FULL_ROUNDS: Final = 3
_RTT_LASTS_S: Final = 10.0  # then the queue is let run empty for a look at the bare path
_MUCH_LOST: Final = 0.1  # of what a round sent
_GIVE_WAY: Final = 0.7
_COME_BACK: Final = 1.1


class Phase(Enum):
    """What is being found out."""

    STARTUP = auto()  # how much the line gives
    DRAIN = auto()  # what startup put into its queue
    CYCLE = auto()  # whether it gives more by now
    LOOK = auto()  # how short its round trip is with no queue


class Sample(NamedTuple):
    """What one SACK says about the path."""

    rate: float | None  # at which the newest packet it acknowledges was delivered
    rtt: float | None  # of that packet; None: it was sent more than once
    delivered: int  # in all, by now
    delivered_then: int  # in all, when that packet was sent
    limited: bool  # was there too little to send, then?
    flight: int  # under way, after this SACK


class Congestion:
    """The model; `window` and `rate` are what follows from it."""

    def __init__(self) -> None:
        self.window: float = FIRST_WINDOW
        self.rtt = math.inf  # the shortest
        self._rtt_at = 0.0
        self._rates: deque[tuple[int, float]] = deque()  # falling, each with its round
        self._round = 0
        self._round_ends = 0  # when so much is delivered
        self._phase = Phase.STARTUP
        self._full_rate = 0.0
        self._full_rounds = 0
        self._step = 2  # of the cycle
        self._step_at = 0.0
        self._round_began = 0  # with so much delivered
        self._lost = 0  # in this round
        self._ceiling = math.inf

    @property
    def bandwidth(self) -> float:
        """The highest rate of delivery of late; 0: not known."""
        return self._rates[0][1] if self._rates else 0.0

    @property
    def rate(self) -> float:
        """How fast to send; inf: as fast as the window allows."""
        return _MARGIN * self._pacing_gain() * self.bandwidth or math.inf

    def acknowledged(self, now: float, size: int, sample: Sample) -> None:
        """Learn from a SACK that says size bytes were delivered."""
        begins = sample.delivered_then >= self._round_ends
        if begins:
            self._judge_losses(sample)
            self._round += 1
            self._round_ends = sample.delivered
        self._measure_rate(sample)
        look = self._measure_rtt(now, sample)
        self._next_phase(now, begins, look, sample)
        self._set_window(size, sample.delivered)

    def lost(self, size: int) -> None:
        """Learn that size bytes were lost."""
        self._lost += size

    def timed_out(self) -> None:
        """Nothing comes back any more: begin with little; the next SACK restores the rest."""
        self.window = LEAST_WINDOW

    # the model

    def _measure_rate(self, sample: Sample) -> None:
        rates = self._rates
        if sample.rate is not None and (not sample.limited or sample.rate > self.bandwidth):
            while rates and rates[-1][1] <= sample.rate:
                rates.pop()
            rates.append((self._round, sample.rate))
        while len(rates) > 1 and rates[0][0] < self._round - _RATE_ROUNDS:
            rates.popleft()

    def _measure_rtt(self, now: float, sample: Sample) -> bool:
        """Return whether it is time to look at the bare path again."""
        expired = now > self._rtt_at + _RTT_LASTS_S
        if sample.rtt is not None and (sample.rtt <= self.rtt or expired):
            self.rtt = sample.rtt
            self._rtt_at = now
        return expired

    def _judge_losses(self, sample: Sample) -> None:
        """At the end of a round: give way where the path cannot take what we send."""
        arrived = sample.delivered - self._round_began
        if self._lost > 2 * LEAST_WINDOW and self._lost > _MUCH_LOST * (self._lost + arrived):
            self._ceiling = max(LEAST_WINDOW, _GIVE_WAY * min(self.window, self._ceiling))
            self._full_rounds = _FULL_ROUNDS  # startup is over too
        else:
            self._ceiling *= _COME_BACK
        self._round_began = sample.delivered
        self._lost = 0

    # what follows from it

    def _product(self, gain: float) -> float:
        return gain * self.bandwidth * max(self.rtt, _SHORTEST_RTT_S)

    def _pacing_gain(self) -> float:
        match self._phase:
            case Phase.STARTUP:
                return _STARTUP_GAIN
            case Phase.DRAIN:
                return 1 / _STARTUP_GAIN
            case Phase.CYCLE:
                return _CYCLE[self._step]
            case Phase.LOOK:
                return 1.0

    def _next_phase(self, now: float, begins: bool, look: bool, sample: Sample) -> None:
        if self._phase is Phase.STARTUP:
            if begins and not sample.limited:
                self._watch_growth()
            if self._full_rounds >= _FULL_ROUNDS:
                self._phase = Phase.DRAIN
        if self._phase is Phase.DRAIN and sample.flight <= self._product(1.0):
            self._begin_cycle(now)
        if self._phase is Phase.CYCLE:
            if look and not sample.limited:
                self._phase = Phase.LOOK
                self._step_at = now
            elif self._step_is_over(now, sample):
                self._step = (self._step + 1) % len(_CYCLE)
                self._step_at = now
        elif self._phase is Phase.LOOK and begins and now - self._step_at > 2 * self.rtt:
            self._rtt_at = now
            self._begin_cycle(now)

    def _step_is_over(self, now: float, sample: Sample) -> bool:
        lasted = (now - self._step_at) / max(self.rtt, _SHORTEST_RTT_S)
        if self._step == _DOWN:
            return sample.flight <= self._product(1.0) or lasted > _DOWN_RTTS
        return lasted > 1

    def _watch_growth(self) -> None:
        if self.bandwidth >= _FULL * self._full_rate:
            self._full_rate = self.bandwidth
            self._full_rounds = 0
        else:
            self._full_rounds += 1

    def _begin_cycle(self, now: float) -> None:
        self._phase = Phase.CYCLE
        self._step = 2
        self._step_at = now

    def _set_window(self, size: int, delivered: int) -> None:
        if self._phase is Phase.LOOK:
            self.window = max(LEAST_WINDOW, self._product(0.5))
            return
        gain = _STARTUP_GAIN if self._phase is Phase.STARTUP else _WINDOW_GAIN
        late = min(_AGGREGATE, LEAST_WINDOW + _AGGREGATE_S * self.bandwidth)
        target = min(self._product(gain) + late, MOST_WINDOW)
        if self._phase is Phase.STARTUP:
            if self.window < target or delivered < FIRST_WINDOW:
                self.window += size
        else:
            self.window = min(self.window + size, target)
        self.window = max(LEAST_WINDOW, min(self.window, self._ceiling))
