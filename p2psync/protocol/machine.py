"""The shape all machines of the protocol share: bytes, events and deadlines, no clock, no I/O.

A machine never waits and never draws a random number: `now` (seconds of a clock that never
goes back), nonces and seeds are arguments. Its driver feeds it whole messages, sends what it
asks to send, and calls it back at its deadline. After a failure a machine sends and reports
nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, Protocol, TypeVar

from p2psync.errors import RemoteProtocolError

EventT = TypeVar("EventT")
StateT = TypeVar("StateT", bound=IntEnum)
InputT = TypeVar("InputT", bound=IntEnum)


@dataclass(frozen=True)
class Failed:
    """The conversation is over because something was wrong; reason is for the log."""

    reason: str


class Machine(Protocol[EventT]):
    """One side of a conversation."""

    def receive_data(self, data: bytes, now: float) -> None:
        """Take one whole message of the peer; never raises for what is in it."""
        ...

    def events(self) -> list[EventT]:
        """Return what happened since the last call, in order."""
        ...

    def data_to_send(self) -> list[bytes]:
        """Return whole messages to send, in order, each exactly once."""
        ...

    def next_deadline(self) -> float | None:
        """Return when `handle_deadline` must be called at the latest; None: never."""
        ...

    def handle_deadline(self, now: float) -> None:
        """Do what is due at `now`; harmless when nothing is."""
        ...


class Steps(Generic[StateT, InputT]):
    """A state and the literal table that says which inputs it takes.

    An input without a row in the table is the peer's fault: machines give their own inputs
    only where the table has them.
    """

    def __init__(self, table: Mapping[tuple[StateT, InputT], StateT], first: StateT) -> None:
        self._table = table
        self.state = first

    def take(self, given: InputT) -> None:
        """Move on; raise RemoteProtocolError when this input has no place in this state."""
        following = self._table.get((self.state, given))
        if following is None:
            raise RemoteProtocolError(
                f"{given.name.lower()} has no place while {self.state.name.lower()}"
            )
        self.state = following
