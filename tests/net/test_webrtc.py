"""The WebRTC transport: the contract, and what strangers and broken peers can do to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections import deque
from collections.abc import AsyncIterator

import pytest

from p2psync.errors import ChannelClosedError, RemoteProtocolError
from p2psync.net.certificate import Certificate
from p2psync.net.webrtc import Signal, WebRtcChannel, WebRtcEnd
from p2psync.net.webrtc.fast import FastSctp
from p2psync.net.webrtc.ice import QUEUE, GuardedConnection
from p2psync.net.webrtc.stack import PLAIN, Stack, best
from tests.support.channel_contract import (
    MIB,
    LimitedChannelContract,
    Pair,
    messages_until_closed,
)

HERE = ("127.0.0.1",)
LONG_S = 20.0
ONE, OTHER = Certificate(), Certificate()


async def ends(
    stack: Stack | None = None, other: Stack | None = None
) -> tuple[tuple[WebRtcEnd, Signal], tuple[WebRtcEnd, Signal]]:
    """Return the offering and the answering end, each with its signal."""
    offering = WebRtcEnd(ONE, offering=True, addresses=HERE, stack=stack)
    answering = WebRtcEnd(OTHER, offering=False, addresses=HERE, stack=other)
    return (offering, await offering.gather()), (answering, await answering.gather())


async def connected(
    stack: Stack | None = None, other: Stack | None = None
) -> tuple[WebRtcChannel, WebRtcChannel]:
    """Return both ends of a new channel, on the best layers if not on others."""
    (offering, offer), (answering, answer) = await ends(stack, other)
    return tuple(
        await asyncio.gather(offering.connect(answer, LONG_S), answering.connect(offer, LONG_S))
    )


class TestWebRtc(LimitedChannelContract):
    """The contract."""

    most_on_the_way = 8 * MIB
    many = 40

    async def connect(self) -> Pair:
        return await connected()


class TestPlainWebRtc(TestWebRtc):
    """The contract, on aiortc's own layers."""

    async def connect(self) -> Pair:
        return await connected(PLAIN, PLAIN)


class TestPlainToFast(TestWebRtc):
    """The contract, between an end that has our layers and one that has not."""

    async def connect(self) -> Pair:
        return await connected(PLAIN, best())


@pytest.fixture
async def plain_pair() -> AsyncIterator[tuple[WebRtcChannel, WebRtcChannel]]:
    """One that can be made to send what no channel of ours sends, and one of ours."""
    one, other = await connected(PLAIN)
    yield one, other
    await asyncio.gather(one.close(), other.close())


@pytest.fixture
async def pair() -> AsyncIterator[tuple[WebRtcChannel, WebRtcChannel]]:
    one, other = await connected()
    yield one, other
    await asyncio.gather(one.close(), other.close())


async def test_t04_another_certificate_than_signed_for_is_refused() -> None:
    """A man in the middle of DTLS has another fingerprint than the envelope says."""
    (offering, offer), (answering, answer) = await ends()
    forged = answer._replace(fingerprint=Certificate().fingerprint)
    results = await asyncio.gather(
        offering.connect(forged, LONG_S),
        answering.connect(offer, 0.5),
        return_exceptions=True,
    )
    assert all(isinstance(result, ChannelClosedError) for result in results)
    assert "not the device" in str(results[0])


async def test_t04_another_seed_finds_no_path() -> None:
    """Who does not know our ICE password gets no answer to its checks that counts."""
    (offering, offer), (answering, answer) = await ends()
    forged = answer._replace(seed=bytes(16))
    results = await asyncio.gather(
        offering.connect(forged, 0.3), answering.connect(offer, 0.3), return_exceptions=True
    )
    assert all(isinstance(result, ChannelClosedError) for result in results)


async def test_nobody_answers() -> None:
    """An attempt is over when its time is."""
    (offering, _), (answering, answer) = await ends()
    with pytest.raises(ChannelClosedError, match="in time"):
        await offering.connect(answer, 0.05)
    await answering.close()


async def test_a_cancelled_attempt_closes_its_sockets() -> None:
    """Losing a race leaves no socket behind."""
    (offering, offer), (answering, answer) = await ends()
    connecting = asyncio.create_task(offering.connect(answer, LONG_S))
    await asyncio.sleep(0)
    connecting.cancel()
    await answering.close()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    for signal in (offer, answer):
        await until_free(signal.candidates[0].port)


async def until_free(port: int) -> None:
    """Wait until nobody has the UDP port."""
    while True:
        with contextlib.suppress(OSError), socket.socket(type=socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", port))
            return
        await asyncio.sleep(0.001)


async def test_closed_channels_leave_no_socket(
    pair: tuple[WebRtcChannel, WebRtcChannel],
) -> None:
    """After close the ports are free again."""
    ports = [int(channel.address.rpartition(":")[2]) for channel in pair]
    await asyncio.gather(*(channel.close() for channel in pair))
    for port in ports:
        await until_free(port)


async def test_t11_stray_datagrams_cost_nothing(
    pair: tuple[WebRtcChannel, WebRtcChannel],
) -> None:
    """What a stranger sends to our port is dropped, whatever it looks like."""
    one, other = pair
    one.admit()
    other.admit()
    port = int(one.address.rpartition(":")[2])  # where the other end is
    connection = other._ice._connection
    assert isinstance(connection, GuardedConnection)
    queued = []
    put, connection._queue.put_nowait = connection._queue.put_nowait, queued.append
    with socket.socket(type=socket.SOCK_DGRAM) as stranger:
        for kind in (b"", b"\x00", b"\x01\x01", b"\x16\xfe\xfd", b"\x80", b"\xff", b"\x40"):
            for _ in range(30):
                stranger.sendto(kind + (os.urandom(200) if kind else b""), ("127.0.0.1", port))
        for length in range(20, 120):  # STUN, broken in many ways
            cookie = b"\x00\x01\x00\x50\x21\x12\xa4\x42"
            stranger.sendto(cookie + os.urandom(length), ("127.0.0.1", port))
    for _ in range(50):
        await asyncio.sleep(0)
    connection._queue.put_nowait = put
    assert queued == []
    await one.send(b"still here")
    assert await other.receive() == b"still here"


async def test_t11_the_queue_of_datagrams_is_bounded(
    pair: tuple[WebRtcChannel, WebRtcChannel],
) -> None:
    """Also from the peer's own address no more is queued than there is room for."""
    connection = pair[0]._ice._connection
    for _ in range(3 * QUEUE):
        connection.data_received(b"\x17\xfe\xfd" + bytes(100), 1)
    assert connection._queue.qsize() == QUEUE


async def test_the_binding_is_of_both_certificates_in_order(
    pair: tuple[WebRtcChannel, WebRtcChannel],
) -> None:
    """The same two devices the other way round have another binding."""
    offering = WebRtcEnd(OTHER, offering=True, addresses=HERE)
    answering = WebRtcEnd(ONE, offering=False, addresses=HERE)
    offer, answer = await offering.gather(), await answering.gather()
    turned = await asyncio.gather(
        offering.connect(answer, LONG_S), answering.connect(offer, LONG_S)
    )
    assert turned[0].binding == turned[1].binding != pair[0].binding
    await asyncio.gather(*(channel.close() for channel in turned))


@pytest.mark.parametrize(
    "piece",
    [b"", b"\x00", b"\x01\x00", b"\x03x", b"\x00\x00\x00\x00\x00", b"\x00\xff\xff\xff\xff"],
)
async def test_t10_what_is_no_piece_closes_the_channel(
    plain_pair: tuple[WebRtcChannel, WebRtcChannel], piece: bytes
) -> None:
    """A peer that breaks our framing is told apart from one that goes away."""
    one, other = plain_pair
    one._wire.send(piece)
    with pytest.raises(RemoteProtocolError):
        await other.receive()


async def test_t10_a_peer_that_ignores_our_room_is_cut(
    pair: tuple[WebRtcChannel, WebRtcChannel],
) -> None:
    """What one peer can make us hold is bounded, whatever it does about flow control."""
    one, other = pair
    one.admit()
    other.admit()
    one._may_send = 1 << 40

    async def flood() -> None:
        while True:
            await one.send(bytes(60_000))

    with pytest.raises(ChannelClosedError):
        await flood()
    with pytest.raises(RemoteProtocolError):
        await messages_until_closed(other)


async def test_t10_other_streams_and_text_are_refused(
    plain_pair: tuple[WebRtcChannel, WebRtcChannel],
) -> None:
    """One reliable stream of binary messages is all there is."""
    one, other = plain_pair
    one._wire.send("text")
    with pytest.raises(RemoteProtocolError):
        await other.receive()


async def test_n12_what_is_handed_to_sctp_is_bounded(
    pair: tuple[WebRtcChannel, WebRtcChannel],
) -> None:
    """At most 1 MiB waits in SCTP's own queue, however fast we could fill it."""
    one, other = pair
    one.admit()
    other.admit()
    sending = asyncio.create_task(one.send(bytes(4 * MIB)))
    most = 0
    while not sending.done():
        most = max(most, one._wire.bufferedAmount)
        await asyncio.sleep(0)
    assert 0 < most <= MIB
    assert len(await other.receive()) == 4 * MIB


def unreliable(channel: WebRtcChannel, rng: random.Random, loss: float) -> None:
    """Let a share of the datagrams to this end be lost, and as many be overtaken."""
    connection = channel._ice._connection
    deliver, held = connection.data_received, list[bytes]()

    def receive(data: bytes, component: int) -> None:
        if rng.random() < loss:
            return
        if rng.random() < loss:
            held.append(data)
            return
        deliver(data, component)
        while held:
            deliver(held.pop(), component)

    connection.data_received = receive


@pytest.mark.slow
@pytest.mark.parametrize("loss", [0.01, 0.03, 0.1])
async def test_lost_and_overtaken_datagrams_change_nothing(
    pair: tuple[WebRtcChannel, WebRtcChannel], loss: float
) -> None:
    """What arrives is what was sent, both ways."""
    rng = random.Random(int(loss * 100))
    for channel in pair:
        channel.admit()
        unreliable(channel, rng, loss)
    sent = [[rng.randbytes(rng.randint(1, 200_000)) for _ in range(8)] for _ in pair]
    for number in range(8):
        sending = [
            asyncio.create_task(channel.send(messages[number]))
            for channel, messages in zip(pair, sent, strict=True)
        ]
        assert await pair[0].receive() == sent[1][number]
        assert await pair[1].receive() == sent[0][number]
        await asyncio.gather(*sending)


async def test_packets_become_as_large_as_the_path_takes(
    pair: tuple[WebRtcChannel, WebRtcChannel],
) -> None:
    """A heartbeat of that size that was answered proves it, before much is sent."""
    one, other = pair
    await one.send(b"something")
    await other.receive()
    await other.send(b"back")
    await one.receive()
    for channel in pair:
        assert isinstance(channel._sctp, FastSctp)
        assert channel._sctp._payload == 1_384


async def test_little_waits_in_sctp_on_a_slow_path(
    pair: tuple[WebRtcChannel, WebRtcChannel],
) -> None:
    """Of a slow path's time few milliseconds are queued: what is urgent waits little."""
    one, _ = pair
    one.admit()
    await one.send(b"what makes the path known")
    await pair[1].receive()
    assert isinstance(one._sctp, FastSctp)
    one._sctp._outbound.congestion._rates = deque([(10**9, 1e6)])
    sending = asyncio.create_task(one.send(bytes(MIB)))
    await asyncio.sleep(0)
    assert 0 < one._wire.bufferedAmount <= 80 * 1024
    sending.cancel()
    await asyncio.wait({sending})
