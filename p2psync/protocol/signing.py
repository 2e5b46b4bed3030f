"""What exactly is signed: a label for the use and length-prefixed fields, never ambiguous.

Every signature and every MAC of this program is over `statement(use, *fields)`. The key that
signs lives above this room; machines are handed it as a `Signer`.
"""

from __future__ import annotations

from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from p2psync.core.ids import DeviceId

PREFIX: Final = b"p2psync/1 "
SIGNATURE_BYTES: Final = 64
KEY_BYTES: Final = 32  # of an X25519 public key


def label(use: bytes) -> bytes:
    """Return what every signed, MACed or derived thing of this use begins with."""
    return PREFIX + use + b"\0"


def statement(use: bytes, *fields: bytes) -> bytes:
    """Return the bytes to sign: the label and each field after its length (u32 big-endian)."""
    parts = [label(use)]
    for field in fields:
        parts += (len(field).to_bytes(4, "big"), field)
    return b"".join(parts)


def verify(device: DeviceId, use: bytes, signature: bytes, *fields: bytes) -> bool:
    """Say whether `device` signed `statement(use, *fields)`; never raises for hostile bytes."""
    try:
        key = Ed25519PublicKey.from_public_bytes(device)
        key.verify(signature, statement(use, *fields))
    except (InvalidSignature, ValueError):
        return False
    return True


class Signer(Protocol):
    """What the machines need of this device's own keys; `identity.keys.Identity` is one."""

    @property
    def device(self) -> DeviceId:
        """This device's Ed25519 public key."""
        ...

    @property
    def key(self) -> bytes:
        """This device's X25519 public key, 32 bytes."""
        ...

    def sign(self, use: bytes, *fields: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature of `statement(use, *fields)`."""
        ...

    def unseal(self, sealed: bytes, info: bytes) -> bytes:
        """Open what HPKE sealed to `key` with the same info; raise ValueError if it is not."""
        ...
