"""Authentication over real channels, and what a man in the middle can do about it: nothing."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from p2psync.core.ids import DeviceId
from p2psync.errors import ChannelClosedError, RemoteProtocolError
from p2psync.identity.keys import new_identity
from p2psync.net.certificate import Certificate
from p2psync.net.channel import Channel
from p2psync.net.handshake import (
    authenticate_accepted,
    authenticate_dialled,
    authenticating,
)
from p2psync.net.memory import memory_pair
from p2psync.net.tls import TlsListener, dial
from tests.support.channel_contract import KIB
from tests.support.devices import known, two_devices

HERE = ("127.0.0.1",)
LONG_S = 10.0
ONE, OTHER = two_devices()


async def test_two_peers_know_each_other_over_tls() -> None:
    """Both ends learn who the other is, and can then send what they like."""
    accepted: asyncio.Future[tuple[DeviceId, Channel]] = asyncio.Future()

    async def on_peer(device: DeviceId, channel: Channel) -> None:
        accepted.set_result((device, channel))

    on_channel = authenticating(OTHER, lambda: [known(OTHER, ONE)], on_peer)
    listener = await TlsListener.open(Certificate(), on_channel, hosts=HERE)
    channel = await dial("127.0.0.1", listener.port, LONG_S)
    assert await authenticate_dialled(channel, ONE, known(ONE, OTHER)) is channel
    device, listened = await accepted
    assert device == ONE.device
    await channel.send(bytes(100 * KIB))
    await listened.send(bytes(200 * KIB))
    assert len(await listened.receive()) == 100 * KIB
    assert len(await channel.receive()) == 200 * KIB
    await asyncio.gather(channel.close(), listened.close())
    await listener.close()


async def test_a_stranger_is_told_nothing() -> None:
    """Who is no peer gets no byte from the listening side; both ends are closed."""
    stranger = new_identity()
    dialled, listened = memory_pair()
    results = await asyncio.gather(
        authenticate_dialled(dialled, stranger, known(stranger, OTHER)),
        authenticate_accepted(listened, OTHER, lambda: [known(OTHER, ONE)]),
        return_exceptions=True,
    )
    assert isinstance(results[0], ChannelClosedError)
    assert isinstance(results[1], RemoteProtocolError)


async def test_n16_the_wrong_device_at_an_address_is_noticed() -> None:
    """A dialler that meets another device than it wants ends the channel."""
    third = new_identity()
    dialled, listened = memory_pair()
    results = await asyncio.gather(
        authenticate_dialled(dialled, ONE, known(ONE, OTHER)),
        authenticate_accepted(listened, third, lambda: [known(third, ONE)]),
        return_exceptions=True,
    )
    assert all(isinstance(r, (ChannelClosedError, RemoteProtocolError)) for r in results)


async def test_t03_a_man_in_the_middle_of_tls_gets_nowhere() -> None:
    """Who ends TLS on both sides and relays every message is noticed by both bindings."""
    outcome: asyncio.Future[BaseException] = asyncio.Future()

    async def on_channel(channel: Channel) -> None:
        try:
            await authenticate_accepted(channel, OTHER, lambda: [known(OTHER, ONE)])
        except (ChannelClosedError, RemoteProtocolError) as error:
            outcome.set_result(error)

    real = await TlsListener.open(Certificate(), on_channel, hosts=HERE)

    async def relay(channel: Channel) -> None:
        onward = await dial("127.0.0.1", real.port, LONG_S)

        async def pump(source: Channel, target: Channel) -> None:
            with contextlib.suppress(ChannelClosedError):
                while True:
                    await target.send(await source.receive())
            await target.close()

        await asyncio.gather(pump(channel, onward), pump(onward, channel))

    middle = await TlsListener.open(Certificate(), relay, hosts=HERE)
    channel = await dial("127.0.0.1", middle.port, LONG_S)
    with pytest.raises((ChannelClosedError, RemoteProtocolError)):
        await authenticate_dialled(channel, ONE, known(ONE, OTHER))
    assert isinstance(await outcome, RemoteProtocolError)
    await middle.close()
    await real.close()


async def test_what_is_sent_right_behind_the_proof_arrives() -> None:
    """The dialler may send its greeting without waiting for the listener's opinion."""
    dialled, listened = memory_pair()

    async def dialler() -> None:
        await authenticate_dialled(dialled, ONE, known(ONE, OTHER))
        await dialled.send(b"hello")

    _, (device, channel) = await asyncio.gather(
        dialler(), authenticate_accepted(listened, OTHER, lambda: [known(OTHER, ONE)])
    )
    assert device == ONE.device
    assert await channel.receive() == b"hello"
