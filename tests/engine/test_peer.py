"""One conversation per peer: which one stays, by rule, when there are several."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from p2psync.core.ids import DeviceId
from p2psync.engine import peer as rules
from p2psync.engine.conversation import Conversation
from p2psync.engine.peer import CLONE, Peer
from p2psync.engine.signal import Bell
from p2psync.net.channel import Channel
from p2psync.net.memory import MemoryChannel, memory_pair
from p2psync.protocol.messages import Hello, Message
from tests.support.hostile import Villain

SMALLER, LARGER = DeviceId(b"a" * 32), DeviceId(b"b" * 32)
INSTANCE, OTHER_INSTANCE = b"i" * 16, b"o" * 16
PATIENCE_S = 10.0


async def _ignore(message: Message) -> None:
    """Take a message."""


@dataclass
class Owner:
    """A Peer under test, with a dial that gives what the test puts there."""

    me: DeviceId
    device: DeviceId
    dialled: asyncio.Queue[Channel | None] = field(default_factory=asyncio.Queue)
    dials: list[bool] = field(default_factory=list)
    cloned: list[DeviceId] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    news: Bell = field(default_factory=Bell)
    peer: Peer = field(init=False)

    def __post_init__(self) -> None:
        self.peer = Peer(
            self.device,
            self.me,
            hello=lambda: Hello("me", bytes(16), "test"),
            dial=self._dial,
            converse=self._converse,
            cloned=self.cloned.append,
        )

    async def _dial(self, peer: Peer, tls_only: bool) -> Channel | None:
        self.dials.append(tls_only)
        self.news.ring()
        return await self.dialled.get()

    async def _converse(self, conversation: Conversation) -> None:
        self.ended.append(await conversation.run(_ignore))
        self.news.ring()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await self.news.wait(0.01)

    def channel(
        self, transport: str = "tls", *, by_us: bool = False
    ) -> tuple[Channel, Villain]:
        """Return our end of a new channel, and the peer's in the hands of the test."""
        dialled, listened = memory_pair()
        mine, theirs = (dialled, listened) if by_us else (listened, dialled)
        for end in (mine, theirs):
            _name(end, transport)
        return mine, Villain(theirs, bytes(16))

    async def meets(
        self, transport: str = "tls", *, by_us: bool = False, instance: bytes = INSTANCE
    ) -> Villain:
        """Let the peer come (or be reached) over a new channel and greet."""
        channel, other = self.channel(transport, by_us=by_us)
        if by_us:
            self.dialled.put_nowait(channel)
        else:
            self.peer.accept(channel)
        await other.say(Hello("peer", instance, "test"))
        await other.hear(Hello)
        return other

    def uses(self, other: Villain) -> bool:
        """Say whether the peer's conversation is the one with this end."""
        conversation = self.peer.conversation
        if conversation is None:
            return False
        channel = conversation.channel
        return isinstance(channel, MemoryChannel) and channel.other is other.channel


def _name(end: MemoryChannel, transport: str) -> None:
    """Let a memory channel pass for another transport: only its rank matters here."""
    end.transport = transport


@contextlib.asynccontextmanager
async def owner(me: DeviceId = SMALLER, device: DeviceId = LARGER) -> AsyncIterator[Owner]:
    """Run a Peer."""
    made = Owner(me, device)
    task = asyncio.create_task(made.peer.run())
    await made.until(lambda: bool(made.dials))
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_who_comes_is_connected() -> None:
    """A channel counts when the peer has greeted over it; then its name is known."""
    async with owner() as one:
        channel, other = one.channel()
        one.peer.accept(channel)
        await other.hear(Hello)
        assert one.peer.conversation is None
        await other.say(Hello("peer", INSTANCE, "test"))
        await one.until(lambda: one.uses(other))
        assert one.peer.name == "peer"


async def test_who_is_reached_is_connected() -> None:
    """A channel we dialled is as good."""
    async with owner() as one:
        other = await one.meets(by_us=True)
        await one.until(lambda: one.uses(other))


async def test_a_later_session_replaces_the_earlier_one() -> None:
    """The earlier may be half dead and not know it; it is told goodbye and ends."""
    async with owner() as one:
        first = await one.meets()
        await one.until(lambda: one.uses(first))
        second = await one.meets()
        await one.until(lambda: one.uses(second))
        await first.end()
        assert one.ended == ["replaced by a later session"]
        assert not second.cut_off


async def test_a_channel_without_a_hello_replaces_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Being authenticated is not enough: who does not greet in time is dropped."""
    monkeypatch.setattr(rules, "HELLO_S", 0.05)
    async with owner() as one:
        first = await one.meets()
        await one.until(lambda: one.uses(first))
        channel, mute = one.channel()
        one.peer.accept(channel)
        await mute.end()
        assert one.uses(first)


CROSSED = [
    pytest.param(SMALLER, LARGER, id="we are the smaller"),
    pytest.param(LARGER, SMALLER, id="we are the larger"),
]


@pytest.mark.parametrize("ours_first", [True, False], ids=["ours first", "theirs first"])
@pytest.mark.parametrize(("me", "device"), CROSSED)
async def test_n09_when_both_dialled_the_smaller_devices_channel_stays(
    me: DeviceId, device: DeviceId, ours_first: bool
) -> None:
    """Two hellos within two seconds, one in each direction: both sides keep the same."""
    async with owner(me, device) as one:
        ends: dict[bool, Villain] = {}
        for by_us in (ours_first, not ours_first):
            ends[by_us] = await one.meets(by_us=by_us)
        mine_stays = me < device
        await one.until(lambda: one.uses(ends[mine_stays]))
        await ends[not mine_stays].end()
        assert one.uses(ends[mine_stays])


async def test_n09_both_sides_of_crossed_dials_agree() -> None:
    """Two real owners, each with a channel of its own making: one of the two is left."""
    async with owner(SMALLER, LARGER) as one, owner(LARGER, SMALLER) as other:
        pairs = [memory_pair(), memory_pair()]
        for end in (*pairs[0], *pairs[1]):
            _name(end, "tls")
        one.dialled.put_nowait(pairs[0][0])
        other.peer.accept(pairs[0][1])
        other.dialled.put_nowait(pairs[1][0])
        one.peer.accept(pairs[1][1])
        await one.until(
            lambda: (
                bool(one.ended and other.ended)
                and one.peer.conversation is not None
                and other.peer.conversation is not None
            )
        )
        assert one.peer.conversation.channel is pairs[0][0]
        assert other.peer.conversation.channel is pairs[0][1]


async def test_after_two_seconds_the_later_one_wins_whoever_dialled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then it is no crossing: the other side came back because the line was dead."""
    monkeypatch.setattr(rules, "BOTH_DIALLED_S", 0.0)
    async with owner(SMALLER, LARGER) as one:
        ours = await one.meets(by_us=True)
        await one.until(lambda: one.uses(ours))
        theirs = await one.meets()
        await one.until(lambda: one.uses(theirs))


async def test_a_better_transport_takes_over() -> None:
    """TLS replaces WebRTC, whoever opened it."""
    async with owner() as one:
        worse = await one.meets("webrtc")
        await one.until(lambda: one.uses(worse))
        better = await one.meets("tls", by_us=True)
        await one.until(lambda: one.uses(better))
        await worse.end()


async def test_a_worse_transport_does_not_replace_a_better_one_that_lives() -> None:
    """A WebRTC channel that came late, because TLS was slow, is sent away."""
    async with owner() as one:
        better = await one.meets("tls")
        await one.until(lambda: one.uses(better))
        worse = await one.meets("webrtc")
        await worse.end()
        assert one.uses(better)
        assert one.ended == ["there is a better channel"]


async def test_a_worse_transport_replaces_a_better_one_that_is_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the better one does not answer any more, the worse is what there is."""
    monkeypatch.setattr(rules, "CLONE_PING_S", 0.1)
    async with owner() as one:
        better = await one.meets("tls")
        await one.until(lambda: one.uses(better))
        better.answers_pings = False
        worse = await one.meets("webrtc")
        await one.until(lambda: one.uses(worse))


async def test_m05_the_same_key_in_two_living_processes_is_a_clone() -> None:
    """Another instance while the old session still answers: both are told, both end."""
    async with owner() as one:
        original = await one.meets(instance=INSTANCE)
        await one.until(lambda: one.uses(original))
        copy = await one.meets(instance=OTHER_INSTANCE)
        await original.end()
        await copy.end()
        assert one.cloned == [LARGER]
        assert one.ended == [CLONE, CLONE]


async def test_a_peer_that_was_started_anew_is_no_clone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another instance, and the old session is silent: it crashed and came back."""
    monkeypatch.setattr(rules, "CLONE_PING_S", 0.1)
    async with owner() as one:
        before = await one.meets(instance=INSTANCE)
        await one.until(lambda: one.uses(before))
        before.answers_pings = False
        after = await one.meets(instance=OTHER_INSTANCE)
        await one.until(lambda: one.uses(after))
        assert not one.cloned


async def test_when_a_session_ends_it_dials_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without being told to; and connected by the best way it does not dial."""
    monkeypatch.setattr(rules, "EVERY_S", 0.05)
    async with owner() as one:
        first = await one.meets(by_us=True)
        await one.until(lambda: one.uses(first))
        dials = len(one.dials)
        await first.leave()
        await one.until(lambda: len(one.dials) > dials)
        assert one.dials[-1] is False


async def test_over_webrtc_it_looks_for_tls_when_the_peer_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only TLS is tried then, and what is found takes over."""
    monkeypatch.setattr(rules, "EVERY_S", 0.05)
    async with owner() as one:
        worse = await one.meets("webrtc", by_us=True)
        await one.until(lambda: one.uses(worse))
        one.peer.seen([("192.0.2.1", 1)])
        await one.until(lambda: one.dials[-1] is True)
        better = await one.meets("tls", by_us=True)
        await one.until(lambda: one.uses(better))


async def test_a_sighting_makes_a_silent_session_prove_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The network changed and the old session does not answer: it ends now, not in 25 s."""
    monkeypatch.setattr(rules, "PROOF_S", 0.1)
    async with owner() as one:
        gone = await one.meets()
        await one.until(lambda: one.uses(gone))
        gone.answers_pings = False
        one.peer.seen([("192.0.2.1", 1)])
        await one.until(lambda: one.peer.conversation is None)


async def test_t02_addresses_are_few_and_the_latest() -> None:
    """Sixteen places at most, those seen last first."""
    async with owner() as one:
        for port in range(1, 100):
            one.peer.seen([("192.0.2.1", port)])
        candidates = one.peer.candidates()
        assert len(candidates) == 16
        assert candidates[0] == ("192.0.2.1", 99)


async def test_t37_a_peer_that_is_cut_takes_no_channel_any_more() -> None:
    """Once its task ends, everything it had is closed, and what comes late is too."""
    async with owner() as one:
        other = await one.meets()
        await one.until(lambda: one.uses(other))
    assert other.cut_off
    channel, late = one.channel()
    one.peer.accept(channel)
    await late.end()


async def test_a_ping_during_a_goodbye_is_no_accident() -> None:
    """A new session that comes while the old one is being ended is taken like any other."""
    async with owner() as one:
        first = await one.meets()
        await one.until(lambda: one.uses(first))
        one.peer.cut("enough")
        second = await one.meets(instance=OTHER_INSTANCE)
        await one.until(lambda: one.uses(second))
        assert not one.cloned
