"""Whatever packet a peer's SCTP sends, it costs little time and ends at most that channel."""

from __future__ import annotations

import asyncio
import random
import struct
import time

import pytest
from aiortc.rtcsctptransport import (
    SCTP_DATA_FIRST_FRAG,
    DataChunk,
    SackChunk,
    serialize_packet,
    tsn_minus_one,
    tsn_plus_one,
)
from google_crc32c import value as crc32c

from p2psync.errors import RemoteProtocolError
from p2psync.net.webrtc import WebRtcChannel
from p2psync.net.webrtc.fast import FastSctp
from p2psync.net.webrtc.stack import PLAIN, Stack, best
from tests.net.test_webrtc import connected

MUTATIONS = 3_000
SLOWEST_S = 1.0


def with_checksum(packet: bytes) -> bytes:
    """Return the packet with the checksum it must have to be looked at."""
    blank = packet[:8] + bytes(4) + packet[12:]
    return packet[:8] + struct.pack("<L", crc32c(blank)) + packet[12:]


async def recorded(channel: WebRtcChannel, other: WebRtcChannel) -> list[bytes]:
    """Return packets of a real conversation, as `other` received them."""
    packets: list[bytes] = []
    handle = other._sctp._handle_data

    async def record(data: bytes) -> None:
        packets.append(data)
        await handle(data)

    other._sctp._handle_data = record  # type: ignore[method-assign]
    for channel_ in (channel, other):
        channel_.admit()
    for size in (10, 3_000, 100_000):
        await channel.send(bytes(size))
        await other.receive()
        await other.send(bytes(size))
        await channel.receive()
    other._sctp._handle_data = handle  # type: ignore[method-assign]
    return packets


def addressed(packet: bytes, to: WebRtcChannel) -> bytes:
    """Return the packet as one of this association."""
    tag = to._sctp._local_verification_tag
    return packet[:4] + tag.to_bytes(4, "big") + packet[8:]


def mutated(rng: random.Random, packet: bytes) -> bytes:
    """Return a packet with a right header and a few wrong bytes after it."""
    changed = bytearray(packet)
    for _ in range(rng.randint(1, 4)):
        position = rng.randrange(12, len(changed))
        if rng.random() < 0.5:
            changed[position] = rng.choice((0, 1, 4, 0x7F, 0xFF))
        else:
            changed[position] ^= 1 << rng.randrange(8)
    if rng.random() < 0.2:
        del changed[rng.randrange(12, len(changed)) :]
    return with_checksum(bytes(changed))


def held(channel: WebRtcChannel) -> int:
    """Return how many packets are kept for a message that is not whole."""
    sctp = channel._sctp
    if isinstance(sctp, FastSctp):
        inbound = sctp._inbound
        return len(inbound._ahead) + len(inbound._pieces) if inbound is not None else 0
    return sum(len(stream.reassembly) for stream in sctp._inbound_streams.values())


STACKS = pytest.mark.parametrize("stack", [best(), PLAIN], ids=["fast", "plain"])


@STACKS
@pytest.mark.slow
async def test_t11_mutated_packets_cost_little(stack: Stack) -> None:
    """No packet takes long or makes us hold much; other connections live on."""
    rng = random.Random(11)
    one, other = await connected(stack, stack)
    packets = await recorded(one, other)
    for _ in range(MUTATIONS):
        packet = mutated(rng, addressed(rng.choice(packets), other))
        started = time.monotonic()
        try:
            await other._sctp._handle_data(packet)
        except Exception:
            # aiortc ends the connection then, which is right
            await asyncio.sleep(0)
        assert time.monotonic() - started < SLOWEST_S
        if other._inbox.ended:
            await asyncio.gather(one.close(), other.close())
            one, other = await connected(stack, stack)
    assert held(other) < 10_000
    await asyncio.gather(one.close(), other.close())


@pytest.mark.parametrize("kind", range(16))
async def test_t11_a_chunk_without_length_ends_nothing_else(kind: int) -> None:
    """The chunk that once made the parser loop for ever is refused."""
    one, other = await connected()
    sctp = other._sctp
    head = struct.pack("!HHLL", 5000, 5000, sctp._local_verification_tag, 0)
    for length in range(5):
        async with asyncio.timeout(SLOWEST_S):
            await sctp._handle_data(with_checksum(head + struct.pack("!BBH", kind, 0, length)))
    await asyncio.gather(one.close(), other.close())


@STACKS
@pytest.mark.parametrize("kind", [1, 2, 4, 5, 6, 9, 130])
async def test_t11_a_parameter_without_length_ends_nothing(stack: Stack, kind: int) -> None:
    """What would make aiortc look for the end of a parameter for ever is dropped."""
    one, other = await connected(stack, stack)
    tag = 0 if kind == 1 else other._sctp._local_verification_tag
    head = struct.pack("!HHLL", 5000, 5000, tag, 0)
    chunk = struct.pack("!BBH", kind, 0, 36) + bytes(32)
    async with asyncio.timeout(SLOWEST_S):
        await other._sctp._handle_data(with_checksum(head + chunk))
        await other.send(b"still here")
        assert await one.receive() == b"still here"
    await asyncio.gather(one.close(), other.close())


@STACKS
async def test_t11_a_sack_with_endless_gaps_costs_nothing(stack: Stack) -> None:
    """Gaps over packets that were never sent are not walked through."""
    one, other = await connected(stack, stack)
    sctp = other._sctp
    sack = SackChunk()
    sack.cumulative_tsn = tsn_minus_one(sctp._local_tsn)
    sack.gaps = [(1, 65_535)] * 250
    packet = serialize_packet(5000, 5000, sctp._local_verification_tag, sack)
    started = time.monotonic()
    for _ in range(20):
        await sctp._handle_data(packet)
    assert time.monotonic() - started < SLOWEST_S
    await other.send(b"still here")
    assert await one.receive() == b"still here"
    await asyncio.gather(one.close(), other.close())


@STACKS
async def test_t10_fragments_without_end_are_cut_off(stack: Stack) -> None:
    """A message that never ends is held up to a bound, then the peer is told off."""
    one, other = await connected(stack, stack)
    one.admit()
    other.admit()
    sctp = other._sctp
    first = tsn_plus_one(sctp._last_received_tsn or 0)
    fragments = 0
    while not other._inbox.ended:
        chunk = DataChunk()
        chunk.flags = SCTP_DATA_FIRST_FRAG if not fragments else 0
        chunk.tsn = (first + fragments) % 2**32
        chunk.protocol = 53
        chunk.user_data = bytes(1_100)
        await sctp._receive_data_chunk(chunk)
        fragments += 1
        assert fragments < 10_000
    with pytest.raises(RemoteProtocolError):
        await other.receive()
    await asyncio.gather(one.close(), other.close())


@STACKS
async def test_t10_packets_far_ahead_are_not_remembered(stack: Stack) -> None:
    """What leaves a gap wider than anything could be under way ends the channel."""
    one, other = await connected(stack, stack)
    chunk = DataChunk()
    chunk.tsn = ((other._sctp._last_received_tsn or 0) + 100_000) % 2**32
    chunk.protocol = 53
    chunk.user_data = b"x"
    await other._sctp._receive_data_chunk(chunk)
    with pytest.raises(RemoteProtocolError):
        await other.receive()
    await asyncio.gather(one.close(), other.close())
