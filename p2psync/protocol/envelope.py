"""Sealed notes by which two peers agree on a direct path: who may read them, who wrote them.

An envelope is at most 480 bytes, so that any mailbox can carry it:

    HPKE to the receiver's X25519 key (32 + 16 bytes around), info = both DeviceIds in order, of
    version (1), kind (1), session (16), offer (32, answers only), seed (16), fingerprint (32),
    candidates: for each a head byte (type, and 80 for IPv6), address (4 or 16), port (2)
    Ed25519 signature (64) over both DeviceIds in order and everything before it

HPKE draws its own ephemeral key inside the library: `seal` is the one function of this room
that is not a pure function of its arguments. Freshness needs no clock: an answer names the
offer it is for, and the owner acts on an offer once per session id.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from p2psync.core.ids import DeviceId
from p2psync.errors import LocalProtocolError, RemoteProtocolError
from p2psync.protocol import limits
from p2psync.protocol.pairkey import direction
from p2psync.protocol.signing import SIGNATURE_BYTES, Signer, statement, verify

SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
SESSION_BYTES: Final = 16
SEED_BYTES: Final = 16
FINGERPRINT_BYTES: Final = 32
OFFER_BYTES: Final = 32
_VERSION: Final = 1
_HPKE_BYTES: Final = 32 + 16
_BODY_BYTES: Final = limits.ENVELOPE_BYTES - _HPKE_BYTES - SIGNATURE_BYTES
_IPV6: Final = 0x80

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Kind(IntEnum):
    """What an envelope is."""

    OFFER = 1
    ANSWER = 2


class CandidateType(IntEnum):
    """How a candidate's address was found, best first."""

    HOST = 1
    REFLEXIVE = 2
    RELAYED = 3


@dataclass(frozen=True)
class Candidate:
    """A place where the sender may be reached by UDP."""

    type: CandidateType
    address: Address
    port: int


@dataclass(frozen=True)
class Content:
    """What an envelope says.

    session: 16 random bytes, the same in offer and answer. offer: for an answer `digest` of
    the offer, else empty. seed: 16 random bytes of which the sender's ICE name and password
    are made. fingerprint: SHA-256 of the sender's DTLS certificate. candidates: best first.
    """

    kind: Kind
    session: bytes
    offer: bytes
    seed: bytes
    fingerprint: bytes
    candidates: tuple[Candidate, ...]


def digest(content: Content) -> bytes:
    """Return the 32 bytes by which an answer names the offer it is for."""
    return hashlib.sha256(statement(b"offer", _pack(content))).digest()


def seal(identity: Signer, peer: DeviceId, peer_key: bytes, content: Content) -> bytes:
    """Return an envelope for `peer`, whose X25519 key is `peer_key`: at most 480 bytes.

    Sixteen candidates fit as long as most are IPv4; see `fitting`.

    Raises:
        LocalProtocolError: the content has a field of a wrong size, or is too long.
        ValueError: it is no key to which anything can be sealed.
    """
    body = _pack(content)
    between = direction(identity.device, peer)
    plain = body + identity.sign(b"envelope", between, body)
    return SUITE.encrypt(plain, X25519PublicKey.from_public_bytes(peer_key), _info(between))


def unseal(identity: Signer, peer: DeviceId, sealed: bytes) -> Content:
    """Return what `peer` sealed to this device.

    Raises:
        RemoteProtocolError: this is not an envelope from that peer to this device.
    """
    if len(sealed) > limits.ENVELOPE_BYTES:
        raise RemoteProtocolError(f"an envelope of {len(sealed)} bytes")
    between = direction(peer, identity.device)
    try:
        plain = identity.unseal(sealed, _info(between))
    except ValueError as error:
        raise RemoteProtocolError("not an envelope to this device") from error
    body, signature = plain[:-SIGNATURE_BYTES], plain[-SIGNATURE_BYTES:]
    if not verify(peer, b"envelope", signature, between, body):
        raise RemoteProtocolError("an envelope that the peer did not sign")
    return _unpack(body)


def fitting(kind: Kind, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the best candidates that one envelope of this kind has room for, at most 16."""
    room = _BODY_BYTES - _fixed_bytes(kind)
    chosen: list[Candidate] = []
    for candidate in candidates[: limits.CANDIDATES]:
        room -= len(_pack_candidate(candidate))
        if room < 0:
            break
        chosen.append(candidate)
    return tuple(chosen)


def _info(between: bytes) -> bytes:
    return statement(b"envelope seal", between)


def _fixed_bytes(kind: Kind) -> int:
    offer = OFFER_BYTES if kind is Kind.ANSWER else 0
    return 2 + SESSION_BYTES + offer + SEED_BYTES + FINGERPRINT_BYTES


def _pack(content: Content) -> bytes:
    fixed = content.session + content.offer + content.seed + content.fingerprint
    body = bytes([_VERSION, content.kind]) + fixed
    if len(content.session) != SESSION_BYTES or len(content.seed) != SEED_BYTES:
        raise LocalProtocolError("a session and a seed have 16 bytes each")
    if len(body) != _fixed_bytes(content.kind):
        raise LocalProtocolError("an answer, and only an answer, names its offer")
    if len(content.candidates) > limits.CANDIDATES:
        raise LocalProtocolError(f"{len(content.candidates)} candidates")
    body += b"".join(map(_pack_candidate, content.candidates))
    if len(body) > _BODY_BYTES:
        raise LocalProtocolError("more candidates than an envelope has room for")
    return body


def _pack_candidate(candidate: Candidate) -> bytes:
    head = candidate.type | (_IPV6 if candidate.address.version == 6 else 0)
    return bytes([head]) + candidate.address.packed + candidate.port.to_bytes(2, "big")


def _unpack(body: bytes) -> Content:
    if len(body) < 2 or body[0] != _VERSION or body[1] not in tuple(Kind):
        raise RemoteProtocolError("an envelope of an unknown version or kind")
    kind = Kind(body[1])
    fixed = _fixed_bytes(kind)
    if len(body) < fixed:
        raise RemoteProtocolError("an envelope that ends too early")
    session, rest = body[2 : 2 + SESSION_BYTES], body[2 + SESSION_BYTES : fixed]
    offer = rest[: -SEED_BYTES - FINGERPRINT_BYTES]
    seed = rest[len(offer) : len(offer) + SEED_BYTES]
    fingerprint = rest[-FINGERPRINT_BYTES:]
    return Content(kind, session, offer, seed, fingerprint, _unpack_candidates(body[fixed:]))


def _unpack_candidates(packed: bytes) -> tuple[Candidate, ...]:
    """Return the candidates; those of types not yet invented are left out."""
    candidates: list[Candidate] = []
    count = at = 0
    while at < len(packed):
        head = packed[at]
        port_at = at + 1 + (16 if head & _IPV6 else 4)
        at, address = port_at + 2, packed[at + 1 : port_at]
        count += 1
        if at > len(packed) or count > limits.CANDIDATES:
            raise RemoteProtocolError("an envelope with broken candidates")
        if head & ~_IPV6 in tuple(CandidateType):
            candidates.append(
                Candidate(
                    CandidateType(head & ~_IPV6),
                    _address(address),
                    int.from_bytes(packed[port_at:at], "big"),
                )
            )
    return tuple(candidates)


def _address(packed: bytes) -> Address:
    return ipaddress.IPv6Address(packed) if len(packed) == 16 else ipaddress.IPv4Address(packed)
