"""The secret two peers share without having sent it, and what is derived from it.

The pair key is HKDF-SHA256 of the X25519 secret, with both DeviceIds, sorted, as salt. It only
lets peers recognise each other and find each other's places; who somebody is, is always proven
with an Ed25519 signature.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from p2psync.core.ids import DeviceId
from p2psync.protocol.signing import label, statement

PAIR_KEY_BYTES: Final = 32


@dataclass(frozen=True)
class KnownPeer:
    """A peer as the machines know it. pair_key: as `pair_key` returns; not shown by repr."""

    device: DeviceId
    pair_key: bytes = field(repr=False)


def pair_key(
    private: X25519PrivateKey, peer_key: bytes, mine: DeviceId, theirs: DeviceId
) -> bytes:
    """Return the 32 bytes that only these two devices can compute.

    Raises:
        ValueError: the peer's key has not 32 bytes, or is one with which no secret arises.
    """
    secret = private.exchange(X25519PublicKey.from_public_bytes(peer_key))
    salt = min(mine, theirs) + max(mine, theirs)
    return HKDF(SHA256(), PAIR_KEY_BYTES, salt, label(b"pair")).derive(secret)


def direction(sender: DeviceId, receiver: DeviceId) -> bytes:
    """Return what tells the two directions between two devices apart."""
    return sender + receiver


def derive(key: bytes, use: bytes, towards: bytes = b"") -> bytes:
    """Return 32 bytes for one use, and one `direction` if that is given."""
    return HKDFExpand(SHA256(), 32, statement(use, towards)).derive(key)


def mac(key: bytes, use: bytes, *fields: bytes) -> bytes:
    """Return HMAC-SHA256 of `statement(use, *fields)`."""
    return hmac.digest(key, statement(use, *fields), "sha256")
