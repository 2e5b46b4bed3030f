"""The ladder to a peer: TLS first, WebRTC through a mailbox after it, the first one wins."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from p2psync.core.ids import DeviceId
from p2psync.errors import ChannelClosedError
from p2psync.identity.keys import Identity, new_identity
from p2psync.net.certificate import Certificate
from p2psync.net.channel import Channel
from p2psync.net.dial import Rung, dial_peer, race
from p2psync.net.handshake import authenticating
from p2psync.net.memory import memory_pair
from p2psync.net.signalling import Signalling
from p2psync.net.tls import TlsListener
from tests.support.devices import known, two_devices
from tests.support.mailbox import Board

HERE = ("127.0.0.1",)
ONE, OTHER = two_devices()


class Listening:
    """A device that listens for one peer."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[Channel] = asyncio.Queue()
        self.address = ("127.0.0.1", 0)


@asynccontextmanager
async def listening(identity: Identity, peer: Identity) -> AsyncIterator[Listening]:
    """Listen on loopback; close what was accepted in the end."""
    here = Listening()

    async def on_peer(device: DeviceId, channel: Channel) -> None:
        assert device == peer.device
        here.accepted.put_nowait(channel)

    on_channel = authenticating(identity, lambda: [known(identity, peer)], on_peer)
    listener = await TlsListener.open(Certificate(), on_channel, hosts=HERE)
    here.address = ("127.0.0.1", listener.port)
    try:
        yield here
    finally:
        await listener.close()
        while not here.accepted.empty():
            await here.accepted.get_nowait().close()


def unused_port() -> int:
    """Return a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return int(unused.getsockname()[1])


class Answering:
    """A device that answers offers; `Signalling` of both sides over one board."""

    def __init__(self) -> None:
        self.board = Board()
        self.dialling = self.signalling(ONE, OTHER)
        self.answering = self.signalling(OTHER, ONE)
        self.accepted: asyncio.Queue[Channel] = asyncio.Queue()
        self.task = asyncio.create_task(self.answer())

    def signalling(self, identity: Identity, peer: Identity) -> Signalling:
        """Return one side's."""
        return Signalling(
            identity,
            known(identity, peer),
            peer.key,
            self.board.end(),
            certificate=Certificate(),
            addresses=HERE,
            offer_open_s=5.0,
        )

    async def answer(self) -> None:
        """Answer for ever."""
        async for channel in self.answering.answer_offers():
            self.accepted.put_nowait(channel)

    async def stop(self) -> None:
        """Answer no more."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def answering() -> AsyncIterator[Answering]:
    there = Answering()
    yield there
    await there.stop()
    while not there.accepted.empty():
        await there.accepted.get_nowait().close()


async def test_dials_the_address_it_is_given() -> None:
    """With one right address there is one authenticated TLS channel."""
    async with listening(OTHER, ONE) as there:
        channel = await dial_peer(ONE, known(ONE, OTHER), [there.address], None)
        assert channel.transport == "tls"
        accepted = await there.accepted.get()
        await channel.send(b"hello")
        assert await accepted.receive() == b"hello"
        await asyncio.gather(channel.close(), accepted.close())


async def test_n16_a_dead_a_silent_and_a_foreign_address_do_not_hold_it_up() -> None:
    """The right device is found behind addresses that lead nowhere or to somebody else."""
    third = new_identity()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with listening(OTHER, ONE) as there, listening(third, ONE) as foreign:
            candidates = [
                ("127.0.0.1", unused_port()),
                silent.getsockname(),
                foreign.address,
                ("no address", 1),
                there.address,
            ]
            channel = await dial_peer(ONE, known(ONE, OTHER), candidates, None)
            assert channel.address == f"127.0.0.1:{there.address[1]}"
            await channel.close()


async def test_says_what_became_of_every_address() -> None:
    """When nothing works the error names each attempt."""
    candidates = [("127.0.0.1", unused_port()), ("127.0.0.1", unused_port())]
    with pytest.raises(ChannelClosedError) as caught:
        await dial_peer(ONE, known(ONE, OTHER), candidates, None)
    for host, port in candidates:
        assert f"{host}:{port}: " in caught.value.reason
    with pytest.raises(ChannelClosedError, match="no address"):
        await dial_peer(ONE, known(ONE, OTHER), [], None)


async def test_goes_over_webrtc_when_tls_is_refused(answering: Answering) -> None:
    """Without any address that answers, the mailbox brings the two together."""
    candidates = [("127.0.0.1", unused_port())]
    channel = await dial_peer(ONE, known(ONE, OTHER), candidates, answering.dialling)
    assert channel.transport == "webrtc"
    accepted = await answering.accepted.get()
    assert (channel.dialled, accepted.dialled) == (True, False)
    await channel.send(bytes(10_000))
    assert await accepted.receive() == bytes(10_000)
    await asyncio.gather(channel.close(), accepted.close())


async def test_goes_over_webrtc_when_tls_is_silent(answering: Answering) -> None:
    """A firewall that drops TCP costs a moment, not the connection."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        channel = await dial_peer(
            ONE,
            known(ONE, OTHER),
            [silent.getsockname()],
            answering.dialling,
            webrtc_after_s=0.05,
        )
        assert channel.transport == "webrtc"
        await channel.close()


async def test_an_offer_is_acted_on_once(answering: Answering) -> None:
    """Whoever repeats a captured offer causes nothing."""
    channel = await answering.dialling.dial()
    offers = [data for _, data in answering.board.put_now]
    await (await answering.accepted.get()).close()
    await channel.close()
    assert len(offers) == 2  # the offer and its answer
    slot = answering.board.put_now[0][0]
    await answering.stop()
    mallory = answering.board.end()
    await mallory.put(slot, offers[0])
    answering.task = asyncio.create_task(answering.answer())
    await mallory.put(slot, b"not an envelope")
    again = await answering.dialling.dial()  # everything before it has been looked at
    assert len(answering.board.put_now) == 6  # no third answer
    await again.close()


async def test_an_answer_to_another_offer_does_not_count(answering: Answering) -> None:
    """Old answers, garbage and envelopes of others in the slot are passed over."""
    channel = await answering.dialling.dial()
    await (await answering.accepted.get()).close()
    await channel.close()
    slot, answer = answering.board.put_now[1]
    mallory = answering.board.end()
    for stale in (answer, answer[:-1], b"garbage", bytes(480), bytes(10_000)):
        await mallory.put(slot, stale)
    again = await answering.dialling.dial()
    assert again.transport == "webrtc"
    await again.close()


async def test_nobody_answers_through_the_mailbox() -> None:
    """An offer is open for its time, then withdrawn."""
    board = Board()
    signalling = Signalling(
        ONE, known(ONE, OTHER), OTHER.key, board.end(), addresses=HERE, offer_open_s=0.3
    )
    with pytest.raises(ChannelClosedError, match="no answer"):
        await signalling.dial()
    await asyncio.sleep(0)
    assert not any(board.slots.values())


async def test_both_dial_at_once() -> None:
    """n09: two offers that cross give two channels; the sessions on them choose one."""
    here, there = Answering(), Answering()
    there.board = here.board
    turned = here.signalling(OTHER, ONE)
    answering = here.signalling(ONE, OTHER)

    async def answer() -> Channel:
        return await anext(aiter(answering.answer_offers()))

    channels = await asyncio.gather(here.dialling.dial(), turned.dial(), answer())
    await asyncio.gather(*(channel.close() for channel in channels))
    await here.stop()
    await there.stop()


async def test_losers_of_a_race_are_closed() -> None:
    """Of several ways that work in the same moment one is kept."""
    pairs = [memory_pair() for _ in range(3)]

    def rung(number: int) -> Rung:
        async def attempt() -> Channel:
            return pairs[number][0]

        return Rung(str(number), 0.0, attempt)

    winner = await race([rung(number) for number in range(3)])
    for dialled, listened in pairs:
        if dialled is winner:
            await dialled.send(b"kept")
        else:
            with pytest.raises(ChannelClosedError):
                await listened.receive()


async def test_a_cancelled_race_leaves_nothing_running() -> None:
    """Giving up gives up every attempt."""
    ended = asyncio.Event()

    async def attempt() -> Channel:
        try:
            return await asyncio.Future()
        finally:
            ended.set()

    racing = asyncio.create_task(race([Rung("never", 0.0, attempt)]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    racing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await racing
    assert ended.is_set()
