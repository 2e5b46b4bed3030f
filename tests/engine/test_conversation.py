"""One conversation: what goes first, who waits, and all the ways in which it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from p2psync.core.ids import DeviceId
from p2psync.core.vector import digest
from p2psync.engine import conversation
from p2psync.engine.conversation import BULK, PAGES, URGENT, Conversation
from p2psync.engine.signal import Bell
from p2psync.errors import ChannelClosedError, RemoteProtocolError
from p2psync.net.memory import memory_pair
from p2psync.protocol import limits
from p2psync.protocol.messages import Detach, Digest, Files, Hello, Message
from tests.support.hostile import Villain, hello

FOLDER = b"f" * 16
ANN, BOB = DeviceId(b"a" * 32), DeviceId(b"b" * 32)
SMALL = Detach(FOLDER)


def bulk(number: int) -> Files:
    """Return a message of about a mebibyte."""
    return Files(number, [(bytes(32), bytes(limits.MIB))], [], True)


class End:
    """One end of a conversation, with all it received."""

    def __init__(self, talk: Conversation) -> None:
        self.conversation = talk
        self.received: list[Message] = []
        self.news = Bell()
        self.gate = asyncio.Event()
        self.gate.set()
        self.on_message: Callable[[Message], Awaitable[None]] = self._keep
        self.task = asyncio.create_task(talk.run(self._take))

    async def _take(self, message: Message) -> None:
        await self.on_message(message)

    async def _keep(self, message: Message) -> None:
        await self.gate.wait()
        self.received.append(message)
        self.news.ring()

    async def until(self, count: int) -> list[Message]:
        """Wait for so many messages."""
        async with asyncio.timeout(10):
            while len(self.received) < count:
                await self.news.wait()
        return self.received


@contextlib.asynccontextmanager
async def two() -> AsyncIterator[tuple[End, End]]:
    """Join two conversations, both open."""
    one, other = memory_pair()
    ends = (
        End(Conversation(one, BOB, bytes(BOB), hello("ann"))),
        End(Conversation(other, ANN, bytes(ANN), hello("bob"))),
    )
    try:
        async with asyncio.timeout(10):
            for end in ends:
                await end.conversation.opened
        yield ends
    finally:
        for end in ends:
            end.task.cancel()
        await asyncio.gather(*(end.task for end in ends), return_exceptions=True)


@contextlib.asynccontextmanager
async def with_villain() -> AsyncIterator[tuple[End, Villain]]:
    """Join a conversation with a villain, not yet greeted."""
    one, other = memory_pair()
    end = End(Conversation(one, BOB, bytes(BOB), hello("ann")))
    villain = Villain(other, FOLDER)
    try:
        yield end, villain
    finally:
        await villain.leave()
        end.task.cancel()
        await asyncio.gather(end.task, return_exceptions=True)


async def ended(end: End) -> str:
    """Wait for the end and return why."""
    async with asyncio.timeout(10):
        return await end.task


async def idle() -> None:
    """Let every task run until all of them wait."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_both_sides_learn_who_speaks() -> None:
    """Each is given the other's greeting; before that nothing may be sent."""
    async with two() as (ann, bob):
        greeting: Hello = ann.conversation.opened.result()
        assert (greeting.name, bob.conversation.opened.result().name) == ("bob", "ann")


async def test_messages_arrive_in_order() -> None:
    """Urgent ones as they were sent, bulk ones as they were sent."""
    async with two() as (ann, bob):
        sent = [Digest(FOLDER, bytes([n]) * 16, bytes(16)) for n in range(200)]
        for message in sent:
            await ann.conversation.send(message)
        assert await bob.until(200) == sent


async def test_what_is_urgent_overtakes_bulk() -> None:
    """A small edit does not wait for a film: it goes before all bulk that is not on its way."""
    async with two() as (ann, bob):
        bob.gate.clear()

        async def film() -> None:
            for number in range(10):
                await ann.conversation.send_bulk(bulk(number))

        sending = asyncio.create_task(film())
        await idle()
        await ann.conversation.send(SMALL)
        bob.gate.set()
        received = await bob.until(11)
        await sending
        assert received.index(SMALL) <= 4
        assert [m.request for m in received if isinstance(m, Files)] == list(range(10))


async def test_bounded_who_sends_waits_for_who_does_not_read() -> None:
    """Queues are short: beyond them `send` and `send_bulk` do not return."""
    async with with_villain() as (end, villain):
        await villain.greet()
        await end.conversation.opened
        await villain.deaf()
        counts = {"urgent": 0, "bulk": 0}

        async def flood(kind: str, message: Message) -> None:
            while True:
                if kind == "bulk":
                    await end.conversation.send_bulk(message)
                else:
                    await end.conversation.send(message)
                counts[kind] += 1

        tasks = [asyncio.create_task(flood("bulk", bulk(1)))]
        await idle()
        tasks.append(asyncio.create_task(flood("urgent", SMALL)))
        await idle()
        assert counts["bulk"] <= BULK + 3
        assert counts["urgent"] <= URGENT
        end.conversation.end("enough")
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, ChannelClosedError)


async def test_bounded_pages_of_entries_wait_for_who_does_not_read() -> None:
    """Few are ready to be sent, though they are urgent: a million files are 300 MB of them."""
    async with with_villain() as (end, villain):
        await villain.greet()
        await end.conversation.opened
        await villain.deaf()
        count = 0

        async def flood() -> None:
            nonlocal count
            while True:
                await end.conversation.send_page(bulk(1))
                count += 1

        flooding = asyncio.create_task(flood())
        await idle()
        assert 0 < count <= PAGES + 3
        end.conversation.end("enough")
        with pytest.raises(ChannelClosedError):
            await flooding


async def test_close_says_goodbye() -> None:
    """Both sides end with the reason; what was queued before has arrived."""
    async with two() as (ann, bob):
        await ann.conversation.send(SMALL)
        await bob.until(1)
        ann.conversation.close("enough for today")
        assert await ended(ann) == await ended(bob) == "enough for today"
        assert ann.conversation.over


async def test_after_the_end_sending_fails() -> None:
    """Whoever sends is told, and so is who waited to send or for a ping."""
    async with two() as (ann, bob):
        bob.conversation.close("bye")
        await ended(ann)
        for use in (
            ann.conversation.send(SMALL),
            ann.conversation.send_bulk(SMALL),
            ann.conversation.ping(),
        ):
            with pytest.raises(ChannelClosedError, match="bye"):
                await use


async def test_a_cut_line_ends_both() -> None:
    """Without a word from the peer, the reason says that it was cut."""
    async with two() as (ann, bob):
        ann.conversation.channel.abort("cable")
        assert await ended(ann) == "cable"
        assert await ended(bob) == "closed by the peer"


async def test_t32_a_breach_ends_it_with_a_reason_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What the owner of a message objects to closes the session; the log says who and why."""

    async def objects(message: Message) -> None:
        raise RemoteProtocolError("not like this")

    async with two() as (ann, bob):
        bob.on_message = objects
        with caplog.at_level(logging.WARNING):
            await ann.conversation.send(SMALL)
            assert await ended(bob) == "not like this"
        assert f"session with {ANN.short} closed: not like this" in caplog.text
        await ended(ann)


async def test_t32_a_bug_of_ours_ends_the_session_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An exception nobody foresaw is logged with its trace; `run` returns as ever."""

    async def stumbles(message: Message) -> None:
        raise KeyError("oops")

    async with two() as (ann, bob):
        bob.on_message = stumbles
        await ann.conversation.send(SMALL)
        assert "internal error" in await ended(bob)
        assert "KeyError" in caplog.text
        await ended(ann)


async def test_a_message_of_ours_that_is_too_large_does_not_hang(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is a bug, and ends the session at once instead of after 25 silent seconds."""
    async with two() as (ann, bob):
        await ann.conversation.send(Digest(FOLDER, digest({}), bytes(2 * limits.MIB)))
        assert "internal error" in await ended(ann)
        assert "a bug while sending" in caplog.text
        await ended(bob)


async def test_ping_measures_the_way() -> None:
    """The answer takes less than a second here, and is kept for `status`."""
    async with two() as (ann, _):
        assert 0 <= await ann.conversation.ping() < 1.0
        assert ann.conversation.rtt_ms is not None


async def test_pings_of_several_are_all_answered() -> None:
    """Whoever asks gets an answer, also when they ask at the same moment."""
    async with two() as (ann, _):
        times = await asyncio.gather(*(ann.conversation.ping() for _ in range(10)))
        assert len(times) == 10


async def test_a_ping_under_way_fails_with_the_end() -> None:
    """Nobody waits for an answer that cannot come."""
    async with with_villain() as (end, villain):
        villain.answers_pings = False
        await villain.greet()
        await end.conversation.opened
        ping = asyncio.create_task(end.conversation.ping())
        await idle()
        await villain.leave()
        with pytest.raises(ChannelClosedError):
            await ping


async def test_who_is_ended_before_greeting_opens_nothing() -> None:
    """`opened` and `admitted` fail with the reason; nobody waits for ever."""
    async with with_villain() as (end, villain):
        await villain.leave()
        await ended(end)
        for future in (end.conversation.opened, end.conversation.admitted):
            with pytest.raises(ChannelClosedError):
                await future


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ping after a tenth of a second, give up after four."""
    monkeypatch.setattr(limits, "PING_AFTER_S", 0.1)
    monkeypatch.setattr(limits, "DEAD_AFTER_S", 0.4)
    monkeypatch.setattr(conversation, "TAKES_S", 0.4)


@pytest.mark.usefixtures("impatient")
async def test_a_silent_peer_is_given_up() -> None:
    """Somebody who neither speaks nor answers is gone."""
    async with with_villain() as (end, villain):
        villain.answers_pings = False
        await villain.greet()
        assert await ended(end) == "the peer is silent"


@pytest.mark.usefixtures("impatient")
async def test_t25_a_peer_that_takes_nothing_is_given_up() -> None:
    """Talking without listening does not keep a session."""
    async with with_villain() as (end, villain):
        await villain.greet()
        await villain.deaf()
        await end.conversation.send_bulk(bulk(1))
        await end.conversation.send_bulk(bulk(2))
        talking = asyncio.create_task(_talk(villain))
        assert await ended(end) == "the peer takes nothing"
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)


async def _talk(villain: Villain) -> None:
    while True:
        await villain.say(SMALL)
        await asyncio.sleep(0.02)


@pytest.mark.usefixtures("impatient")
async def test_a_slow_owner_is_no_dead_peer() -> None:
    """While a message waits for its owner, neither side takes the other for dead."""
    async with two() as (ann, bob):
        bob.gate.clear()
        await ann.conversation.send(SMALL)
        await asyncio.sleep(3 * limits.DEAD_AFTER_S)
        assert not ann.conversation.over
        assert not bob.conversation.over
        bob.gate.set()
        await bob.until(1)


@pytest.mark.usefixtures("impatient")
async def test_silence_is_kept_alive() -> None:
    """With nothing to say, pings alone keep both sides."""
    async with two() as (ann, bob):
        await asyncio.sleep(3 * limits.DEAD_AFTER_S)
        assert not ann.conversation.over
        assert not bob.conversation.over


async def test_cancelling_closes_the_channel() -> None:
    """Whoever stops running a conversation leaves no channel and no task behind."""
    async with two() as (ann, bob):
        tasks = asyncio.all_tasks()
        ann.task.cancel()
        await asyncio.gather(ann.task, return_exceptions=True)
        assert ann.conversation.over
        await ended(bob)
        assert len(asyncio.all_tasks()) < len(tasks)


async def test_numbers_of_requests_are_never_used_twice() -> None:
    """An answer belongs to one request."""
    async with two() as (ann, _):
        numbers = [ann.conversation.next_number() for _ in range(100)]
        assert len(set(numbers)) == 100
