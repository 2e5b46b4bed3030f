"""Devices that know each other, for tests of what happens between them."""

from __future__ import annotations

from p2psync.identity.keys import Identity, new_identity
from p2psync.protocol.pairkey import KnownPeer


def known(identity: Identity, peer: Identity) -> KnownPeer:
    """Return the peer as the identity knows it."""
    return KnownPeer(peer.device, identity.exchange(peer.key, peer.device))


def two_devices() -> tuple[Identity, Identity]:
    """Return two new devices."""
    return new_identity(), new_identity()
