"""The WebRTC transport: the contract, and what strangers and broken peers can do to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator

import pytest

from p2psync.errors import ChannelClosedError, RemoteProtocolError
from p2psync.net.certificate import Certificate
from p2psync.net.webrtc import Signal, WebRtcChannel, WebRtcEnd
from p2psync.net.webrtc.ice import QUEUE, GuardedConnection
from tests.support.channel_contract import (
    MIB,
    LimitedChannelContract,
    Pair,
    messages_until_closed,
)

HERE = ("127.0.0.1",)
LONG_S = 20.0
ONE, OTHER = Certificate(), Certificate()


async def ends() -> tuple[tuple[WebRtcEnd, Signal], tuple[WebRtcEnd, Signal]]:
    """Return the offering and the answering end, each with its signal."""
    offering = WebRtcEnd(ONE, offering=True, addresses=HERE)
    answering = WebRtcEnd(OTHER, offering=False, addresses=HERE)
    return (offering, await offering.gather()), (answering, await answering.gather())


async def connected() -> tuple[WebRtcChannel, WebRtcChannel]:
    """Return both ends of a new channel."""
    (offering, offer), (answering, answer) = await ends()
    return tuple(
        await asyncio.gather(offering.connect(answer, LONG_S), answering.connect(offer, LONG_S))
    )


class TestWebRtc(LimitedChannelContract):
    """The contract."""

    most_on_the_way = 8 * MIB
    many = 40

    async def connect(self) -> Pair:
        return await connected()


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
    pair: tuple[WebRtcChannel, WebRtcChannel], piece: bytes
) -> None:
    """A peer that breaks our framing is told apart from one that goes away."""
    one, other = pair
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
    pair: tuple[WebRtcChannel, WebRtcChannel],
) -> None:
    """One reliable stream of binary messages is all there is."""
    one, other = pair
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
