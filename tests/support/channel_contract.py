"""What every transport must do, whatever it is; each transport's tests inherit this class."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest

from p2psync.errors import ChannelClosedError, LocalProtocolError, RemoteProtocolError
from p2psync.net.channel import CLOSE_TIMEOUT_S, Channel
from p2psync.net.registry import TRANSPORTS
from p2psync.protocol import limits

KIB, MIB = 1024, 1024 * 1024
Pair = tuple[Channel, Channel]


async def messages_until_closed(channel: Channel) -> list[bytes]:
    """Receive until the channel says that no more messages come."""
    messages = []
    while True:
        try:
            messages.append(await channel.receive())
        except ChannelClosedError:
            return messages


async def send_all(channel: Channel, messages: Iterable[bytes]) -> None:
    """Send one after the other."""
    for message in messages:
        await channel.send(message)


class ChannelContract:
    """Subclasses say how to `connect`; every test below must then pass."""

    most_on_the_way = 32 * MIB
    """How much a sender may get rid of while nobody receives."""

    many = 400
    """How many messages are many, for this transport's speed."""

    async def connect(self) -> Pair:
        """Return the dialled and the other end of a new channel; `disconnect` follows."""
        raise NotImplementedError

    async def disconnect(self) -> None:
        """End what `connect` began, apart from the channels."""

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[Pair]:
        """A channel between two peers that know each other."""
        dialled, listened = await self.connect()
        dialled.admit()
        listened.admit()
        yield dialled, listened
        await asyncio.gather(dialled.close(), listened.close())
        await self.disconnect()

    @pytest.fixture
    async def pair(self) -> AsyncIterator[Pair]:
        async with self.admitted() as pair:
            yield pair

    async def test_messages_of_every_size_arrive_whole_and_in_order(self, pair: Pair) -> None:
        """Any message from one byte to the longest arrives as it was sent, in order."""
        dialled, listened = pair
        lengths = (1, 2, 3, 4 * KIB, 16 * KIB, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, MIB)
        sizes = [*lengths, MIB + 1, limits.MESSAGE_BYTES, 1]
        rng = random.Random(1)
        sent = [rng.randbytes(size) for size in sizes]

        async def send() -> None:
            for message in sent:
                await listened.send(message)

        sending = asyncio.create_task(send())
        assert [await dialled.receive() for _ in sent] == sent
        await sending

    async def test_many_messages_both_ways_at_once(self, pair: Pair) -> None:
        """Both ends may send and receive at the same time, as much as they like."""
        rng = random.Random(2)
        sent = [
            [rng.randbytes(rng.choice((1, 100, 5_000, 70_000))) for _ in range(self.many)]
            for _ in pair
        ]

        async def send(channel: Channel, messages: list[bytes]) -> None:
            for message in messages:
                await channel.send(message)

        async def receive(channel: Channel) -> list[bytes]:
            return [await channel.receive() for _ in range(self.many)]

        _, _, at_dialled, at_listened = await asyncio.gather(
            send(pair[0], sent[0]), send(pair[1], sent[1]), receive(pair[0]), receive(pair[1])
        )
        assert at_listened == sent[0]
        assert at_dialled == sent[1]

    async def test_n04_a_sender_waits_for_a_receiver_that_does_not_receive(
        self, pair: Pair
    ) -> None:
        """What is under way is bounded, nothing of it is lost, and the sender goes on later."""
        dialled, listened = pair
        sent = 0
        while True:
            assert sent * 64 * KIB < self.most_on_the_way
            sending = asyncio.create_task(dialled.send(sent.to_bytes(4, "big") * (16 * KIB)))
            sent += 1
            done, _ = await asyncio.wait({sending}, timeout=0.5)
            if not done:
                break
        for number in range(sent):
            assert (await listened.receive())[:4] == number.to_bytes(4, "big")
        await sending

    async def test_what_was_sent_before_a_close_arrives(self, pair: Pair) -> None:
        """Closing loses nothing that was sent, and ends both directions at both ends."""
        dialled, listened = pair
        sent = [bytes([i]) * 10_000 for i in range(40)]
        for message in sent:
            await dialled.send(message)
        received, _ = await asyncio.gather(messages_until_closed(listened), dialled.close())
        assert received == sent
        for channel in pair:
            with pytest.raises(ChannelClosedError):
                await channel.receive()
            with pytest.raises(ChannelClosedError):
                await channel.send(b"too late")
        await dialled.close()

    async def test_what_was_sent_before_a_close_arrives_while_the_peer_talks(
        self, pair: Pair
    ) -> None:
        """A peer that is sending while we close still receives all we sent before."""
        dialled, listened = pair

        async def talk() -> None:
            while True:
                await listened.send(bytes(20_000))

        talking = asyncio.create_task(talk())
        sent = [bytes([i]) * 30_000 for i in range(20)]
        for message in sent:
            await dialled.send(message)
        received, _ = await asyncio.gather(messages_until_closed(listened), dialled.close())
        assert received == sent
        with pytest.raises(ChannelClosedError):
            await talking

    async def test_closing_ends_a_receive_that_waits(self, pair: Pair) -> None:
        """A task that waits in receive is told, on the closing side too."""
        receiving = asyncio.gather(*(messages_until_closed(channel) for channel in pair))
        await asyncio.sleep(0)
        await pair[1].close()
        assert await receiving == [[], []]

    async def test_n08_closing_takes_a_second_at_most(self, pair: Pair) -> None:
        """A peer that takes nothing does not hold up a close."""
        dialled, _ = pair
        while True:
            sending = asyncio.create_task(dialled.send(bytes(MIB)))
            done, _ = await asyncio.wait({sending}, timeout=0.3)
            if not done:
                break
        started = time.monotonic()
        await asyncio.gather(dialled.close(), dialled.close())
        assert time.monotonic() - started < CLOSE_TIMEOUT_S + 1
        with pytest.raises(ChannelClosedError):
            await sending

    async def test_a_peer_that_goes_away_is_noticed(self, pair: Pair) -> None:
        """When the other end is dropped, receive and send say so."""
        dialled, listened = pair
        await dialled.send(b"last words")
        assert await listened.receive() == b"last words"
        dialled.abort("gone")
        with pytest.raises(ChannelClosedError):
            await listened.receive()
        with pytest.raises(ChannelClosedError):
            await listened.send(b"hello?")
        with pytest.raises(ChannelClosedError, match="gone"):
            await dialled.receive()

    async def test_a_cancelled_receive_loses_nothing(self, pair: Pair) -> None:
        """Whenever receive is cancelled, the message is there for the next call."""
        dialled, listened = pair
        received = []
        for number in range(60):
            receiving = asyncio.create_task(listened.receive())
            await asyncio.sleep(0)
            await dialled.send(bytes([number]))
            if number % 3:
                await asyncio.wait({receiving}, timeout=0.002)
            receiving.cancel()
            received += [
                message
                for message in await asyncio.gather(receiving, return_exceptions=True)
                if isinstance(message, bytes)
            ]
        while len(received) < 60:
            received.append(await listened.receive())
        assert received == [bytes([number]) for number in range(60)]

    async def test_the_ends_agree_on_what_they_are(self, pair: Pair) -> None:
        """Same transport, same binding, opposite roles; another pair has another binding."""
        dialled, listened = pair
        assert dialled.transport == listened.transport
        assert dialled.transport in TRANSPORTS
        assert (dialled.dialled, listened.dialled) == (True, False)
        assert dialled.binding == listened.binding
        assert len(dialled.binding) == 32

    async def test_what_is_no_message_is_not_sent(self, pair: Pair) -> None:
        """An empty and a too long message are our own bugs, and harm nothing."""
        dialled, listened = pair
        for message in (b"", bytes(limits.MESSAGE_BYTES + 1)):
            with pytest.raises(LocalProtocolError):
                await dialled.send(message)
        await dialled.send(b"fine")
        assert await listened.receive() == b"fine"


class LimitedChannelContract(ChannelContract):
    """For transports a stranger can reach: what he may do before he is admitted."""

    async def test_t10_a_stranger_cannot_send_much(self) -> None:
        """Before it is admitted a channel takes 4 KiB in all with frames, then it is closed."""
        dialled, listened = await self.connect()
        try:
            await send_all(dialled, [bytes(KIB)] * 4)
            for _ in range(3):
                assert await listened.receive() == bytes(KIB)
            with pytest.raises(RemoteProtocolError):
                await listened.receive()
        finally:
            await asyncio.gather(dialled.close(), listened.close())
            await self.disconnect()

    async def test_what_follows_the_proof_is_not_a_strangers(self) -> None:
        """The peer may send a large message right behind the one that gets it admitted."""
        dialled, listened = await self.connect()
        dialled.admit()
        try:
            sent = [b"proof", bytes(MIB), b"and more"]
            rest = asyncio.create_task(send_all(dialled, sent))
            await asyncio.wait({rest}, timeout=0.1)  # all that fits is there before we look
            assert await listened.receive() == sent[0]
            listened.admit()
            assert [await listened.receive() for _ in sent[1:]] == sent[1:]
            await rest
        finally:
            await asyncio.gather(dialled.close(), listened.close())
            await self.disconnect()
