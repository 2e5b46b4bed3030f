"""The conversation over an authenticated channel: Hello first, then messages, until Goodbye.

Each side greets at once and sends nothing else before the other's Hello has arrived: a channel
counts as open only then, and a listener never meets a long message while it still takes short
ones only.

Alive means heard of. After 10 s without a message from the peer a Ping goes out, after 25 s the
session is over; it is over as well when something has waited 25 s to be taken for sending. The
driver must therefore ask for `data_to_send` only when it can send, and where a message may take
longer than that to cross the line, tell of its parts (`note_received`, `note_sent`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from math import inf
from typing import Final

from p2psync.errors import LocalProtocolError, RemoteProtocolError
from p2psync.protocol import codec, limits
from p2psync.protocol.machine import Failed, Steps
from p2psync.protocol.messages import Goodbye, Hello, Message, Ping, Pong


@dataclass(frozen=True)
class Opened:
    """The peer's Hello is there: the channel is open, `send` may be used."""

    hello: Hello


@dataclass(frozen=True)
class Received:
    """A message that is the owner's business."""

    message: Message


@dataclass(frozen=True)
class Answered:
    """The peer answered the Ping that `Session.ping` returned the number of."""

    number: int
    rtt_s: float


@dataclass(frozen=True)
class Closed:
    """The session ended on purpose, by either side; reason is for the log."""

    reason: str


SessionEvent = Opened | Received | Answered | Closed | Failed


class State(IntEnum):
    """Where the conversation stands."""

    GREETING = 1  # our Hello is sent, the peer's has not come
    OPEN = 2
    OVER = 3


class Input(IntEnum):
    """What can happen to it."""

    HELLO = 1
    PING = 2
    PONG = 3
    GOODBYE = 4
    MESSAGE = 5  # any other message of the peer
    LEAVE = 6  # we say goodbye
    FAULT = 7


TRANSITIONS: Final = {
    (State.GREETING, Input.HELLO): State.OPEN,
    (State.GREETING, Input.GOODBYE): State.OVER,
    (State.GREETING, Input.LEAVE): State.OVER,
    (State.GREETING, Input.FAULT): State.OVER,
    (State.OPEN, Input.PING): State.OPEN,
    (State.OPEN, Input.PONG): State.OPEN,
    (State.OPEN, Input.MESSAGE): State.OPEN,
    (State.OPEN, Input.GOODBYE): State.OVER,
    (State.OPEN, Input.LEAVE): State.OVER,
    (State.OPEN, Input.FAULT): State.OVER,
}

_INPUTS: Final[dict[type[Message], Input]] = {
    Hello: Input.HELLO,
    Ping: Input.PING,
    Pong: Input.PONG,
    Goodbye: Input.GOODBYE,
}


_PINGS_UNANSWERED: Final = 32  # of a peer that shows signs of life all the same


class Session:
    """One side of the conversation; both sides are the same machine."""

    def __init__(self, hello: Hello, *, now: float) -> None:
        """Start by greeting with `hello`."""
        self._steps = Steps(TRANSITIONS, State.GREETING)
        self._events: list[SessionEvent] = []
        self._out: list[bytes] = []
        self._pong: Pong | None = None  # one at most: a peer has one Ping under way
        self._now = now
        self._heard = now
        self._waiting_since: float | None = None  # something has to be sent since then
        self._rtt: float | None = None
        self._pings: dict[int, float] = {}  # under way: number -> when
        self._asked: set[int] = set()  # of those, the owner's
        self._number = 0
        self._queue(hello)

    @property
    def state(self) -> State:
        """Where the conversation stands."""
        return self._steps.state

    @property
    def rtt(self) -> float | None:
        """Seconds a Ping took there and back, last measured; None: not yet."""
        return self._rtt

    def send(self, message: Message) -> None:
        """Queue a message; after the end it is dropped, as one under way would be.

        Raises:
            LocalProtocolError: before `Opened`, or the message is too large, or one of those
                the machine itself sends.
        """
        if self.state is State.GREETING or type(message) in _INPUTS:
            raise LocalProtocolError(f"{type(message).__name__} is not to be sent now")
        if self.state is State.OPEN:
            self._queue(message)

    def ping(self, now: float) -> int:
        """Ask for a sign of life: `Answered` with the number returned follows, or the end.

        Raises:
            LocalProtocolError: the session is not open, or 32 are under way already.
        """
        if self.state is not State.OPEN or len(self._pings) >= _PINGS_UNANSWERED:
            raise LocalProtocolError("no ping now")
        self._now = now
        self._asked.add(self._ping())
        return self._number

    def close(self, reason: str) -> None:
        """Say goodbye, after what is queued; nothing more is taken or sent."""
        if self.state is not State.OVER:
            self._steps.take(Input.LEAVE)
            self._queue(Goodbye(reason[: limits.REASON_TEXT]))
            self._events.append(Closed(reason))

    def receive_data(self, data: bytes, now: float) -> None:
        """Take the peer's next message; what is wrong with it becomes `Failed`."""
        self._now = now
        if self.state is State.OVER:
            return  # was under way when it ended
        self._heard = now
        try:
            message = codec.decode(data)
            self._steps.take(_INPUTS.get(type(message), Input.MESSAGE))
            self._take(message)
        except RemoteProtocolError as error:
            self._fail(str(error))

    def events(self) -> list[SessionEvent]:
        """Return what happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def data_to_send(self) -> list[bytes]:
        """Return the messages to send, in order; ask only when they can be sent."""
        out, self._out = self._out, []
        if self._pong is not None:
            out.append(codec.encode(self._pong))
            self._pong = None
        self._waiting_since = None
        return out

    def next_deadline(self) -> float | None:
        """Return when to ping or to give up; None after the end."""
        if self.state is State.OVER:
            return None
        return min(self._ping_due(), self._dead_at())

    def handle_deadline(self, now: float) -> None:
        """Ping or give up, if it is time."""
        self._now = now
        if self.state is State.OVER:
            return
        if now >= self._dead_at():
            stuck = now < self._heard + limits.DEAD_AFTER_S
            self._fail("the peer takes nothing" if stuck else "the peer is silent")
        elif now < self._ping_due():
            return
        elif len(self._pings) < _PINGS_UNANSWERED:
            self._ping()
        else:
            self._fail("the peer answers no ping")

    def note_received(self, now: float) -> None:
        """Count as a sign of life what is no whole message yet, or waits for its owner.

        A large message on a slow line, or an owner at work, must not look like silence. Called
        after `handle_deadline`, so that the peer is pinged and hears of us all the while.
        """
        self._now = self._heard = now

    def note_sent(self, now: float) -> None:
        """Count as progress that a part of what is being sent has left."""
        self._now = now
        if self._waiting_since is not None:
            self._waiting_since = now

    def _take(self, message: Message) -> None:
        match message:
            case Hello():
                self._events.append(Opened(message))
                self._ping()  # the round trip is wanted from the start
            case Ping(number):
                self._pong = Pong(number)
                self._note_waiting()
            case Pong(number):
                self._take_pong(number)
            case Goodbye(reason):
                self._out.clear()
                self._pong = None
                self._events.append(Closed(reason))
            case _:
                self._events.append(Received(message))

    def _take_pong(self, number: int) -> None:
        sent = self._pings.get(number)
        if sent is None:
            raise RemoteProtocolError("a pong without a ping")
        self._rtt = self._now - sent
        # A peer answers the latest of several; it has seen those before it as well.
        for earlier in sorted(n for n in self._pings if n <= number):
            since = self._pings.pop(earlier)
            if earlier in self._asked:
                self._asked.remove(earlier)
                self._events.append(Answered(earlier, self._now - since))

    def _ping(self) -> int:
        self._number += 1
        self._pings[self._number] = self._now
        self._queue(Ping(self._number))
        return self._number

    def _ping_due(self) -> float:
        if self.state is State.GREETING:
            return inf
        latest = self._pings.get(self._number, self._heard)
        return max(self._heard, latest) + limits.PING_AFTER_S

    def _dead_at(self) -> float:
        since = self._heard
        if self._waiting_since is not None:
            since = min(since, self._waiting_since)
        return since + limits.DEAD_AFTER_S

    def _queue(self, message: Message) -> None:
        self._out.append(codec.encode(message))
        self._note_waiting()

    def _note_waiting(self) -> None:
        if self._waiting_since is None:
            self._waiting_since = self._now

    def _fail(self, reason: str) -> None:
        self._steps.take(Input.FAULT)
        self._out.clear()
        self._pong = None
        self._events.append(Failed(reason))
