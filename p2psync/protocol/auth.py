"""Proves to both ends of a fresh channel who the other is, in three small messages.

Layout (integers big-endian; nothing else is ever parsed from somebody unknown):

    1  dialler   01, count, versions (u16 each), nonce (32), MAC (32)
    2  listener  02, version chosen (u16), nonce (32), signature (64)
    3  dialler   03, signature (64)

The MAC of 1 is made with the pair key over both DeviceIds in order, binding, versions and
nonce: only the right peer recognises it, a stranger learns nothing and gets no answer, and it
means nothing on another channel or sent back. Both signatures are over the signer's role, the
versions offered and chosen, both DeviceIds, both nonces and the binding of the channel. A man
in the middle ends two channels with two bindings, so nothing he relays verifies; nobody can
take versions away, replay another conversation or turn one around.

The listener computes one HMAC per peer and nothing else before it has recognised the dialler.
"""

from __future__ import annotations

import hmac
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from p2psync.core.ids import DeviceId
from p2psync.errors import LocalProtocolError, RemoteProtocolError
from p2psync.protocol import limits
from p2psync.protocol.machine import Failed, Steps
from p2psync.protocol.pairkey import KnownPeer, mac
from p2psync.protocol.signing import SIGNATURE_BYTES, Signer, verify

VERSIONS: Final = (1,)
"""The versions of the protocol this program speaks."""

NONCE_BYTES: Final = 32
BINDING_BYTES: Final = 32
_MAC_BYTES: Final = 32
_OPEN: Final = b"\x01"
_ANSWER: Final = b"\x02"
_CONFIRM: Final = b"\x03"
_ANSWER_BYTES: Final = 1 + 2 + NONCE_BYTES + SIGNATURE_BYTES
_CONFIRM_BYTES: Final = 1 + SIGNATURE_BYTES


@dataclass(frozen=True)
class Authenticated:
    """The other end is this peer, on this very channel; from here on speak this version."""

    peer: DeviceId
    version: int


class State(IntEnum):
    """Where a conversation stands, on either side."""

    AWAIT_OPEN = 1
    AWAIT_ANSWER = 2
    AWAIT_CONFIRM = 3
    DONE = 4
    FAILED = 5


class Input(IntEnum):
    """What can happen to it."""

    OPEN = 1
    ANSWER = 2
    CONFIRM = 3
    FAULT = 4


TRANSITIONS: Final = {
    (State.AWAIT_OPEN, Input.OPEN): State.AWAIT_CONFIRM,
    (State.AWAIT_OPEN, Input.FAULT): State.FAILED,
    (State.AWAIT_ANSWER, Input.ANSWER): State.DONE,
    (State.AWAIT_ANSWER, Input.FAULT): State.FAILED,
    (State.AWAIT_CONFIRM, Input.CONFIRM): State.DONE,
    (State.AWAIT_CONFIRM, Input.FAULT): State.FAILED,
}


@dataclass(frozen=True)
class _Transcript:
    """All that both signatures are over."""

    dialler: DeviceId
    listener: DeviceId
    binding: bytes
    versions: tuple[int, ...]
    version: int
    nonce_dialler: bytes
    nonce_listener: bytes

    def fields(self, role: bytes) -> tuple[bytes, ...]:
        return (
            role,
            _pack_versions(self.versions),
            self.version.to_bytes(2, "big"),
            self.dialler,
            self.listener,
            self.nonce_dialler,
            self.nonce_listener,
            self.binding,
        )

    def sign(self, role: bytes, signer: Signer) -> bytes:
        return signer.sign(b"auth", *self.fields(role))

    def verify(self, role: bytes, device: DeviceId, signature: bytes) -> bool:
        return verify(device, b"auth", signature, *self.fields(role))


class _Auth(ABC):
    """What both sides have in common: the shape of a machine, one deadline, one way to fail."""

    def __init__(
        self,
        identity: Signer,
        binding: bytes,
        nonce: bytes,
        versions: Iterable[int],
        now: float,
        first: State,
    ) -> None:
        if len(binding) != BINDING_BYTES or len(nonce) != NONCE_BYTES:
            raise LocalProtocolError("a binding and a nonce have 32 bytes each")
        self._identity = identity
        self._binding = binding
        self._nonce = nonce
        self._versions = tuple(versions)
        self._steps = Steps(TRANSITIONS, first)
        self._deadline = now + limits.AUTH_TIMEOUT_S
        self._events: list[Authenticated | Failed] = []
        self._out: list[bytes] = []

    @property
    def state(self) -> State:
        """Where the conversation stands."""
        return self._steps.state

    @property
    def over(self) -> bool:
        """True when nothing more is to be expected of this machine."""
        return self.state in (State.DONE, State.FAILED)

    def receive_data(self, data: bytes, now: float) -> None:
        """Take the peer's next message; what is wrong with it becomes `Failed`.

        Raises:
            LocalProtocolError: the conversation is over; this belongs to the session.
        """
        if self.over:
            raise LocalProtocolError("authentication is over")
        try:
            if now >= self._deadline:
                raise RemoteProtocolError("authentication took too long")
            self._take(data)
        except RemoteProtocolError as error:
            self._fail(str(error))

    def events(self) -> list[Authenticated | Failed]:
        """Return what happened since the last call: at most one event in all."""
        events, self._events = self._events, []
        return events

    def data_to_send(self) -> list[bytes]:
        """Return the messages to send, in order."""
        out, self._out = self._out, []
        return out

    def next_deadline(self) -> float | None:
        """Return when this has taken too long; None once it is over."""
        return None if self.over else self._deadline

    def handle_deadline(self, now: float) -> None:
        """Fail if it has taken too long."""
        if not self.over and now >= self._deadline:
            self._fail("authentication took too long")

    @abstractmethod
    def _take(self, data: bytes) -> None:
        """Take a message; raise RemoteProtocolError for what is wrong with it."""

    def _fail(self, reason: str) -> None:
        self._steps.take(Input.FAULT)
        self._out.clear()
        self._events.append(Failed(reason))

    def _succeed(self, peer: DeviceId, version: int) -> None:
        self._events.append(Authenticated(peer, version))


class AuthDialler(_Auth):
    """The side that opened the channel; it knows whom it wants to reach."""

    def __init__(
        self,
        identity: Signer,
        peer: KnownPeer,
        binding: bytes,
        nonce: bytes,
        versions: Sequence[int] = VERSIONS,
        *,
        now: float,
    ) -> None:
        """Start by sending message 1. nonce: 32 fresh random bytes. binding: the channel's."""
        super().__init__(identity, binding, nonce, versions, now, State.AWAIT_ANSWER)
        if not 0 < len(self._versions) <= limits.VERSIONS_OFFERED:
            raise LocalProtocolError(f"{len(self._versions)} versions to offer")
        self._peer = peer
        offered = _pack_versions(self._versions)
        tag = _recognition(peer.pair_key, identity.device, peer.device, binding, offered, nonce)
        self._out.append(_OPEN + bytes([len(self._versions)]) + offered + nonce + tag)

    def _take(self, data: bytes) -> None:
        if len(data) != _ANSWER_BYTES or data[:1] != _ANSWER:
            raise RemoteProtocolError("not an answer to our opening")
        version = int.from_bytes(data[1:3], "big")
        if version not in self._versions:
            raise RemoteProtocolError(f"the peer chose version {version}, not offered")
        nonce, signature = data[3 : 3 + NONCE_BYTES], data[3 + NONCE_BYTES :]
        transcript = _Transcript(
            self._identity.device,
            self._peer.device,
            self._binding,
            self._versions,
            version,
            self._nonce,
            nonce,
        )
        if not transcript.verify(b"listener", self._peer.device, signature):
            raise RemoteProtocolError("the peer did not prove who it is")
        self._steps.take(Input.ANSWER)
        self._out.append(_CONFIRM + transcript.sign(b"dialler", self._identity))
        self._succeed(self._peer.device, version)


class AuthListener(_Auth):
    """The side that was dialled; it learns from message 1 which of its peers this may be."""

    def __init__(
        self,
        identity: Signer,
        peers: Sequence[KnownPeer],
        binding: bytes,
        nonce: bytes,
        versions: Sequence[int] = VERSIONS,
        *,
        now: float,
    ) -> None:
        """Wait for message 1. nonce: 32 fresh random bytes. peers: who may come in now."""
        super().__init__(identity, binding, nonce, versions, now, State.AWAIT_OPEN)
        self._peers = peers
        self._transcript: _Transcript | None = None

    def _take(self, data: bytes) -> None:
        if self._transcript is None:
            self._transcript = self._recognise(data)
            self._steps.take(Input.OPEN)
            self._out.append(
                _ANSWER
                + self._transcript.version.to_bytes(2, "big")
                + self._nonce
                + self._transcript.sign(b"listener", self._identity)
            )
            return
        if len(data) != _CONFIRM_BYTES or data[:1] != _CONFIRM:
            raise RemoteProtocolError("not the confirmation of our answer")
        dialler = self._transcript.dialler
        if not self._transcript.verify(b"dialler", dialler, data[1:]):
            raise RemoteProtocolError("the dialler did not prove who it is")
        self._steps.take(Input.CONFIRM)
        self._succeed(dialler, self._transcript.version)

    def _recognise(self, data: bytes) -> _Transcript:
        offered, nonce, tag = _split_open(data)
        found: DeviceId | None = None
        for peer in self._peers:
            expected = _recognition(
                peer.pair_key, peer.device, self._identity.device, self._binding, offered, nonce
            )
            if hmac.compare_digest(expected, tag):
                found = peer.device
        if found is None:
            raise RemoteProtocolError("the dialler is nobody we know")
        versions = _unpack_versions(offered)
        common = set(versions) & set(self._versions)
        if not common:
            raise RemoteProtocolError(f"no version in common; the peer speaks {versions}")
        return _Transcript(
            found,
            self._identity.device,
            self._binding,
            versions,
            max(common),
            nonce,
            self._nonce,
        )


def _recognition(
    pair_key: bytes,
    dialler: DeviceId,
    listener: DeviceId,
    binding: bytes,
    offered: bytes,
    nonce: bytes,
) -> bytes:
    return mac(pair_key, b"auth open", dialler, listener, binding, offered, nonce)


def _split_open(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return versions, nonce and MAC of message 1, all still as bytes."""
    count = data[1] if len(data) > 1 else 0
    ends = 2 + 2 * count
    if (
        data[:1] != _OPEN
        or not 0 < count <= limits.VERSIONS_OFFERED
        or len(data) != ends + NONCE_BYTES + _MAC_BYTES
    ):
        raise RemoteProtocolError("not an opening")
    return data[2:ends], data[ends : ends + NONCE_BYTES], data[ends + NONCE_BYTES :]


def _pack_versions(versions: tuple[int, ...]) -> bytes:
    return b"".join(version.to_bytes(2, "big") for version in versions)


def _unpack_versions(packed: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(packed[i : i + 2], "big") for i in range(0, len(packed), 2))
