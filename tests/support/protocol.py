"""Devices with fixed keys, two machines joined by hand, and ways to spoil bytes."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from p2psync.identity.keys import Identity
from p2psync.protocol.machine import Machine
from p2psync.protocol.pairkey import KnownPeer


def device(name: str) -> Identity:
    """Return the same keys for the same name, always."""
    signing = sha256(b"sign " + name.encode()).digest()
    receiving = sha256(b"receive " + name.encode()).digest()
    return Identity(
        Ed25519PrivateKey.from_private_bytes(signing),
        X25519PrivateKey.from_private_bytes(receiving),
    )


def known(me: Identity, other: Identity) -> KnownPeer:
    """Return what `me` knows of `other` once they are paired."""
    return KnownPeer(other.device, me.exchange(other.key, other.device))


def deliver(sender: Machine[Any], receiver: Machine[Any], now: float = 0.0) -> list[bytes]:
    """Give the receiver all that the sender wants to send; return it as well."""
    messages = sender.data_to_send()
    for message in messages:
        receiver.receive_data(message, now)
    return messages


def spoiled(message: bytes) -> Iterator[bytes]:
    """Yield the message with each byte changed, cut at each place, and with one byte more."""
    for i in range(len(message)):
        yield message[:i] + bytes([message[i] ^ (1 << i % 8)]) + message[i + 1 :]
        yield message[:i]
    yield message + b"\0"
