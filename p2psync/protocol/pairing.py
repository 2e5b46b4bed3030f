"""Makes two devices peers with nothing but a short code: four messages, carried by anything.

    1  accepting -> sharing   01, count, versions (u16 each), slot (u16), SPAKE2 X (33)
    2  sharing -> accepting   02, version chosen (u16), SPAKE2 Y (33)
    3  accepting -> sharing   03, HMAC(confirm, th), sealed `Joining`
    4  sharing -> accepting   04, sealed `Welcome`
    5  sharing -> accepting   05, reason: instead of 4 (or 2), so that nobody waits in vain
    6  accepting -> sharing   06, sealed nothing: after 4, the person declined what is offered

`th` hashes label, versions offered and chosen, slot, X and Y; every key is derived from the
SPAKE2 secret with `th` as salt and a label of its own, and used once. Message 3 is sealed with
th, message 4 with th and the hash of message 3 as associated data; both carry an Ed25519
signature over the same and the payload. So whoever does not know the code reads no name, key or
folder, learns only whether one guess per conversation was right, and can neither change nor
relay anything: another version, slot, X or Y gives other keys on the two sides.

SPAKE2 itself confirms nothing and raises nothing for a wrong password. The sharing side asks
its owner to count a guess, durably, *before* it compares the HMAC of message 3 (`Guess`, then
`verify_guess`); the accepting side takes message 4 as the proof that the other knew the code.

Messages may be lost and repeated: an identical message 1 or 3 gets the identical answer, for as
long as the machine lives. An owner keeps one `PairingSharer` per message 1, finds it again by
these bytes when the accepting side comes back over another carrier, and lets `repeat` start the
accepting side over there.
"""

from __future__ import annotations

import hashlib
import hmac
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from p2psync.errors import LocalProtocolError, RemoteProtocolError
from p2psync.protocol import invitation, limits, words
from p2psync.protocol.invitation import Joining as Joining  # both are part of this module's
from p2psync.protocol.invitation import Refusal as Refusal  # interface, kept apart for size
from p2psync.protocol.invitation import Welcome as Welcome
from p2psync.protocol.invitation import slot_of as slot_of
from p2psync.protocol.machine import Failed, Steps
from p2psync.protocol.pake import (
    MAC_BYTES,
    SEAL_BYTES,
    SPAKE_BYTES,
    Exchange,
    Keys,
    transcript_of,
)
from p2psync.protocol.signing import Signer
from p2psync.protocol.words import Code

VERSIONS: Final = (1,)
"""The versions of pairing this program speaks."""

_JOINING: Final = b"pairing join"
_WELCOMING: Final = b"pairing welcome"


@dataclass(frozen=True)
class Guess:
    """Sharing side: count a guess durably, then call `verify_guess`."""


@dataclass(frozen=True)
class WrongCode:
    """The other side does not know our code; the conversation is over."""


@dataclass(frozen=True)
class Verified:
    """Sharing side: the guess was right. Store the new peer durably, then call `accept`."""

    joining: Joining


@dataclass(frozen=True)
class Offer:
    """Accepting side: the other knows the code, and this is what it shares."""

    welcome: Welcome


@dataclass(frozen=True)
class Refused:
    """Accepting side: the other ended the conversation, and why."""

    refusal: Refusal


@dataclass(frozen=True)
class Declined:
    """Sharing side: the person at the other end wants none of it. Undo what was stored."""


class State(IntEnum):
    """Where a conversation stands, on either side."""

    AWAIT_START = 1
    AWAIT_JOIN = 2
    GUESSED = 3  # the owner counts
    VERIFIED = 4  # the owner stores the peer
    AWAIT_ANSWER = 5
    AWAIT_WELCOME = 6
    DONE = 7
    OVER = 8


class Input(IntEnum):
    """What can happen to it."""

    START = 1
    JOIN = 2
    RIGHT = 3  # the guess was
    ACCEPT = 4
    ANSWER = 5
    WELCOME = 6
    END = 7  # wrong code, fault, refusal or time


TRANSITIONS: Final = {
    (State.AWAIT_START, Input.START): State.AWAIT_JOIN,
    (State.AWAIT_JOIN, Input.JOIN): State.GUESSED,
    (State.GUESSED, Input.RIGHT): State.VERIFIED,
    (State.VERIFIED, Input.ACCEPT): State.DONE,
    (State.AWAIT_ANSWER, Input.ANSWER): State.AWAIT_WELCOME,
    (State.AWAIT_WELCOME, Input.WELCOME): State.DONE,
} | {(state, Input.END): State.OVER for state in State if state is not State.OVER}

Event = Guess | WrongCode | Verified | Offer | Refused | Declined | Failed


class _Pairing(ABC):
    """What both sides have in common: the shape of a machine, one deadline, one way to end."""

    def __init__(self, identity: Signer, code: Code, deadline: float, first: State) -> None:
        self._identity = identity
        self._code = code
        self._deadline = deadline
        self._steps = Steps(TRANSITIONS, first)
        self._events: list[Event] = []
        self._out: list[bytes] = []

    @property
    def state(self) -> State:
        """Where the conversation stands."""
        return self._steps.state

    def receive_data(self, data: bytes, now: float) -> None:
        """Take the other side's next message; what is wrong with it becomes `Failed`."""
        self.handle_deadline(now)
        if self.state is State.OVER:
            return
        try:
            self._take(data)
        except RemoteProtocolError as error:
            self._end(Failed(str(error)))

    def events(self) -> list[Event]:
        """Return what happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def data_to_send(self) -> list[bytes]:
        """Return the messages to send, in order."""
        out, self._out = self._out, []
        return out

    def next_deadline(self) -> float | None:
        """Return when the conversation is over at the latest; None once it is."""
        return None if self.state is State.OVER else self._deadline

    def handle_deadline(self, now: float) -> None:
        """End what has taken too long; a pairing that was done just ends."""
        if self.state is not State.OVER and now >= self._deadline:
            done = self.state is State.DONE
            self._end(None if done else Failed("pairing took too long"))

    @abstractmethod
    def _take(self, data: bytes) -> None:
        """Take a message; raise RemoteProtocolError for what is wrong with it."""

    def _end(self, event: Event | None) -> None:
        self._steps.take(Input.END)
        self._out.clear()
        if event is not None:
            self._events.append(event)


class PairingSharer(_Pairing):
    """The side that shows the code: one machine per conversation, many per code."""

    def __init__(
        self,
        identity: Signer,
        code: Code,
        seed: bytes,
        *,
        deadline: float,
        versions: Sequence[int] = VERSIONS,
    ) -> None:
        """Wait for message 1. seed: 32 fresh random bytes. deadline: when the code expires."""
        super().__init__(identity, code, deadline, State.AWAIT_START)
        self._versions = tuple(versions)
        self._exchange = Exchange(code.password, seed, sharing=True)
        self._start = self._answer = self._join = self._welcome = b""
        self._transcript = b""
        self._keys: Keys | None = None

    def verify_guess(self) -> None:
        """Compare, after the guess was counted: `Verified`, `WrongCode` or `Failed` follows.

        Raises:
            LocalProtocolError: there is no guess, or it was compared before.
        """
        if self.state is not State.GUESSED:
            raise LocalProtocolError("there is no guess to compare")
        try:
            keys = self._keys = self._agree()
            if keys is None:
                self._refuse(WrongCode(), Refusal.WRONG)
                return
            joining = self._open_join(keys)
        except RemoteProtocolError as error:
            self._end(Failed(str(error)))
        else:
            self._steps.take(Input.RIGHT)
            self._events.append(Verified(joining))

    def accept(self, welcome: Welcome) -> None:
        """Send message 4, after the new peer was stored durably.

        Raises:
            LocalProtocolError: nobody is verified, or the message is larger than 64 KiB.
        """
        if self.state is not State.VERIFIED or self._keys is None:
            raise LocalProtocolError("nobody to accept")
        join_hash = hashlib.sha256(self._join).digest()
        signed = invitation.pack_signed(
            self._identity, _WELCOMING, welcome, self._transcript, join_hash
        )
        sealed = self._keys.seal(b"welcome", signed, join_hash)
        if 1 + len(sealed) > limits.PAIRING_WELCOME:
            raise LocalProtocolError(f"a welcome of {len(sealed)} bytes")
        self._welcome = invitation.WELCOME + sealed
        self._steps.take(Input.ACCEPT)
        self._out.append(self._welcome)

    def refuse(self, refusal: Refusal = Refusal.GONE) -> None:
        """Tell the other side not to wait; the conversation is over."""
        if self.state is not State.OVER:
            self._refuse(None, refusal)

    def _take(self, data: bytes) -> None:
        if self.state is State.AWAIT_START:
            self._take_start(data)
        elif data == self._start:
            self._out.append(self._answer)
        elif self.state is State.AWAIT_JOIN:
            least = 1 + MAC_BYTES + SEAL_BYTES
            if data[:1] != invitation.JOIN or not least <= len(data) <= limits.PAIRING_JOIN:
                raise RemoteProtocolError("not a message 3 of pairing")
            self._join = data
            self._steps.take(Input.JOIN)
            self._events.append(Guess())
        elif self.state is State.DONE and data == self._join:
            self._out.append(self._welcome)
        elif self.state is State.DONE and data[:1] == invitation.DECLINE:
            self._take_decline(data)
        # Anything else is a repetition while the owner is at work, or somebody else's.

    def _take_decline(self, data: bytes) -> None:
        join_hash = hashlib.sha256(self._join).digest()
        if self._keys is not None and self._keys.open(b"decline", data[1:], join_hash) == b"":
            self._end(Declined())

    def _take_start(self, data: bytes) -> None:
        versions, slot = invitation.split_start(data)
        if slot != words.number_of(self._code.slot):
            raise RemoteProtocolError("pairing for another slot")
        common = set(versions) & set(self._versions)
        if not common:
            failed = Failed(f"no version in common; the other side speaks {versions}")
            self._refuse(failed, Refusal.VERSION)
            return
        answer = max(common).to_bytes(2, "big") + self._exchange.start()
        self._start, self._answer = data, invitation.ANSWER + answer
        self._transcript = transcript_of(self._start, self._answer)
        self._steps.take(Input.START)
        self._out.append(self._answer)

    def _agree(self) -> Keys | None:
        """Return the keys both sides have; None: the other does not know the code."""
        try:
            secret = self._exchange.finish(self._start[-SPAKE_BYTES:])
        except RemoteProtocolError:
            return None  # an X that no honest side sends: a guess like any other
        keys = Keys(secret, self._transcript)
        right = hmac.compare_digest(keys.confirmation(), self._join[1 : 1 + MAC_BYTES])
        return keys if right else None

    def _open_join(self, keys: Keys) -> Joining:
        plain = keys.open(b"join", self._join[1 + MAC_BYTES :])
        if plain is None:
            raise RemoteProtocolError("a message 3 that does not open")
        return invitation.unpack_joining(plain, _JOINING, self._transcript)

    def _refuse(self, event: Event | None, refusal: Refusal) -> None:
        self._end(event)
        self._out.append(invitation.REFUSE + bytes([refusal]))


class PairingAccepter(_Pairing):
    """The side where the code was typed; one machine per candidate tried."""

    def __init__(
        self,
        identity: Signer,
        code: Code,
        name: str,
        instance: bytes,
        seed: bytes,
        *,
        deadline: float,
        versions: Sequence[int] = VERSIONS,
    ) -> None:
        """Start by sending message 1. deadline: when to give up.

        seed: 32 fresh random bytes. name, instance: this device's, as in `messages.Hello`.
        """
        super().__init__(identity, code, deadline, State.AWAIT_ANSWER)
        self._joining = Joining(identity.device, identity.key, name, instance)
        self._versions = tuple(versions)
        self._exchange = Exchange(code.password, seed, sharing=False)
        point = self._exchange.start()
        self._start = invitation.pack_start(self._versions, code.slot, point)
        self._answer = self._join = b""
        self._transcript = b""
        self._keys: Keys | None = None
        self._out.append(self._start)

    def repeat(self) -> None:
        """Send message 1 once more, over another carrier; what follows goes on from there."""
        if self.state in (State.AWAIT_ANSWER, State.AWAIT_WELCOME):
            self._out.append(self._start)

    def linger(self) -> None:
        """Send message 3 once more, so that the other side keeps the link while we decide."""
        if self.state is State.DONE:
            self._out.append(self._join)

    def decline(self) -> None:
        """Say that the person wants none of what was offered; the conversation is over.

        Raises:
            LocalProtocolError: nothing was offered.
        """
        if self.state is not State.DONE or self._keys is None:
            raise LocalProtocolError("nothing to decline")
        sealed = self._keys.seal(b"decline", b"", hashlib.sha256(self._join).digest())
        self._end(None)
        self._out.append(invitation.DECLINE + sealed)

    def _take(self, data: bytes) -> None:
        if self.state is State.DONE:
            return  # a repetition
        if data[:1] == invitation.REFUSE:
            self._take_refusal(data)
        elif self._keys is None:
            self._take_answer(data)
        elif data == self._answer:
            self._out.append(self._join)
        else:
            self._take_welcome(data, self._keys)

    def _take_refusal(self, data: bytes) -> None:
        refusal = data[1:]
        if refusal == bytes([Refusal.WRONG]):
            self._end(WrongCode())
        else:
            old = refusal == bytes([Refusal.VERSION])
            self._end(Refused(Refusal.VERSION if old else Refusal.GONE))

    def _take_answer(self, data: bytes) -> None:
        if data[:1] != invitation.ANSWER or len(data) != 3 + SPAKE_BYTES:
            raise RemoteProtocolError("not a message 2 of pairing")
        version = int.from_bytes(data[1:3], "big")
        if version not in self._versions:
            raise RemoteProtocolError(f"the other side chose version {version}, not offered")
        secret = self._exchange.finish(data[3:])
        self._answer = data
        self._transcript = transcript_of(self._start, data)
        keys = self._keys = Keys(secret, self._transcript)
        signed = invitation.pack_signed(
            self._identity, _JOINING, self._joining, self._transcript
        )
        sealed = keys.seal(b"join", signed)
        self._join = invitation.JOIN + keys.confirmation() + sealed
        self._steps.take(Input.ANSWER)
        self._out.append(self._join)

    def _take_welcome(self, data: bytes, keys: Keys) -> None:
        if data[:1] != invitation.WELCOME or len(data) > limits.PAIRING_WELCOME:
            raise RemoteProtocolError("not a message 4 of pairing")
        join_hash = hashlib.sha256(self._join).digest()
        plain = keys.open(b"welcome", data[1:], join_hash)
        if plain is None:
            self._end(WrongCode())
            return
        welcome = invitation.unpack_welcome(plain, _WELCOMING, self._transcript, join_hash)
        self._steps.take(Input.WELCOME)
        self._events.append(Offer(welcome))
