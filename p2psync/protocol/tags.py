"""What an announcement on the LAN says: tags by which peers, and nobody else, know each other.

A tag is six bytes of an HMAC with the pair key over the direction, a random nonce and the
port. It is a hint to dial, never a proof. Sorted and filled up with random bytes to one of few
sizes, tags tell a stranger neither who is meant nor, closely, how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from p2psync.core.ids import DeviceId
from p2psync.protocol import limits
from p2psync.protocol.pairkey import KnownPeer, direction, mac

SIZES: Final = (8, 16, 32, limits.TAGS)
FILLER_BYTES: Final = limits.TAGS * limits.TAG_BYTES


def make_tags(
    mine: DeviceId, peers: Sequence[KnownPeer], nonce: bytes, port: int, filler: bytes
) -> list[bytes]:
    """Return the tags to announce, each 6 bytes: 8, 16, 32 or 128 of them, in no order.

    Of more than 128 peers the first 128 are told; the others find us by their own tags.
    filler: `FILLER_BYTES` fresh random bytes. nonce: fresh random bytes, announced as well.

    Raises:
        ValueError: there is too little filler.
    """
    if len(filler) < FILLER_BYTES:
        raise ValueError(f"{FILLER_BYTES} bytes of filler are needed")
    told = peers[: limits.TAGS]
    tags = [_tag(peer, mine, peer.device, nonce, port) for peer in told]
    size = next(size for size in SIZES if size >= len(tags))
    for start in range(0, (size - len(tags)) * limits.TAG_BYTES, limits.TAG_BYTES):
        tags.append(filler[start : start + limits.TAG_BYTES])
    return sorted(tags)  # as random as a shuffle, and needs none


def match(
    tags: Sequence[bytes], nonce: bytes, port: int, mine: DeviceId, peers: Sequence[KnownPeer]
) -> int | None:
    """Return the index of the peer that seems to have announced this; None: none of them.

    Costs one HMAC per peer, whatever the announcement holds.
    """
    announced = frozenset(tags[: limits.TAGS])
    for index, peer in enumerate(peers):
        if _tag(peer, peer.device, mine, nonce, port) in announced:
            return index
    return None


def _tag(
    peer: KnownPeer, sender: DeviceId, receiver: DeviceId, nonce: bytes, port: int
) -> bytes:
    towards = direction(sender, receiver)
    whole = mac(peer.pair_key, b"mdns", towards, nonce, port.to_bytes(2, "big"))
    return whole[: limits.TAG_BYTES]
