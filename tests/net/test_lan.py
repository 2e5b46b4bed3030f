"""Peers see each other on the LAN, strangers learn nothing, slots are offered and found."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from discovery.records import Found, Lost
from p2psync.core.ids import DeviceId
from p2psync.net import lan as net_lan
from p2psync.net.lan import Candidate, Lan, LanPresence, PairingSlots, Sighting
from p2psync.protocol import limits, tags
from p2psync.protocol.pairkey import KnownPeer
from tests.support.inside import on_loopback

A, B, C = (DeviceId(bytes([n]) * 32) for n in range(3))
KEY = b"k" * 32


@asynccontextmanager
async def two() -> AsyncIterator[tuple[Lan, Lan]]:
    async with Lan() as one, Lan() as other:
        yield one, other


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within ten seconds")


async def first(sightings: AsyncGenerator[Sighting, None]) -> Sighting:
    async with asyncio.timeout(10):
        return await anext(sightings)


@on_loopback
async def test_peers_see_each_other_within_a_second() -> None:
    """Each is told the other's device, and where it listens."""
    async with two() as (one, other):
        here, there = LanPresence(one, A), LanPresence(other, B)
        async with aclosing(here.sightings()) as mine, aclosing(there.sightings()) as theirs:
            started = time.monotonic()
            await here.announce(4001, {B: KEY, C: b"c" * 32})
            await there.announce(4002, {A: KEY})
            assert await first(theirs) == Sighting(A, (("127.0.0.1", 4001),))
            assert await first(mine) == Sighting(B, (("127.0.0.1", 4002),))
            assert time.monotonic() - started < 1.0
            there.ask()
            assert (await first(theirs)).device == A  # once more


@on_loopback
async def test_a_new_peer_is_seen_without_waiting() -> None:
    """When a peer becomes one, both see each other at once, though both were there before."""
    async with two() as (one, other):
        here, there = LanPresence(one, A), LanPresence(other, B)
        async with aclosing(here.sightings()) as mine, aclosing(there.sightings()) as theirs:
            await here.announce(4001, {})
            await there.announce(4002, {})
            pending = asyncio.ensure_future(anext(mine))
            async with aclosing(one.browse(net_lan.PRESENCE_TYPE)) as raw:
                await anext(raw)  # the record is there, and says nothing to a stranger
            assert not pending.done()
            await here.peers_changed({B: KEY})
            await there.peers_changed({A: KEY})
            assert (await pending).device == B
            assert (await first(theirs)).device == A


@on_loopback
async def test_t01_a_copied_record_is_only_a_hint_and_a_wrong_port_is_none() -> None:
    """Tags hold for one port and one direction: copied to another port, or by the one they
    were meant for, they are ignored."""
    async with two() as (one, other):
        real, mine = LanPresence(one, A), LanPresence(other, B)
        await real.announce(4001, {B: KEY})
        async with (
            aclosing(mine.sightings()) as sightings,
            aclosing(other.browse(net_lan.PRESENCE_TYPE)) as raw,
        ):
            await mine.peers_changed({A: KEY})
            found = await anext(raw)
            assert isinstance(found, Found)
            copied = {key: value or b"" for key, value in found.txt.items()}
            await one.announce(net_lan.PRESENCE_TYPE, "copy", 4666, copied)
            await one.announce(net_lan.PRESENCE_TYPE, "junk", 4667, {b"n": b"x", b"t0": b"y"})
            while not isinstance(event := await anext(raw), Found) or event.name != "junk":
                pass
            assert (await first(sightings)).addresses == (("127.0.0.1", 4001),)
            back = LanPresence(one, A)
            back._know({B: KEY})
            assert back._recognise(found) is None  # our own tags, sent back to us
            pending = asyncio.ensure_future(anext(sightings))
            await real.withdraw()
            await real.announce(4003, {B: KEY})
            assert (await pending).addresses == (("127.0.0.1", 4003),)


@on_loopback
async def test_t14_two_records_of_one_agent_share_nothing() -> None:
    """A renewed record has another name, nonce and tags, no device, host or person in it, and
    nothing in common with the one before but its type and port; the old one says goodbye."""
    async with two() as (one, other):
        here = LanPresence(one, A)
        async with aclosing(other.browse(net_lan.PRESENCE_TYPE)) as raw:
            await here.announce(4001, {B: KEY, C: b"c" * 32})
            before = await anext(raw)
            await here.peers_changed({B: KEY, C: b"c" * 32})
            events = [await anext(raw), await anext(raw)]
        assert isinstance(before, Found)
        after = next(event for event in events if isinstance(event, Found))
        assert {event.name for event in events} == {before.name, after.name}
        assert before.port == after.port
        assert before.txt.keys() == after.txt.keys() == {b"n", b"t0"}
        old, new = (_said(found) for found in (before, after))
        assert not {old[i : i + 4] for i in range(len(old) - 3)} & {
            new[i : i + 4] for i in range(len(new) - 3)
        }
        for secret in (bytes(A), bytes(B), KEY, net_lan.asyncio.__name__.encode()):
            assert secret[:8] not in old + new


@on_loopback
async def test_t14_a_change_of_network_renews_the_record() -> None:
    """When an interface comes, the old record says goodbye and one with another name takes
    its place, with the same tags for the same peer."""
    async with two() as (one, other):
        here, there = LanPresence(one, A), LanPresence(other, B)
        async with (
            aclosing(other.browse(net_lan.PRESENCE_TYPE)) as raw,
            aclosing(there.sightings()) as sightings,
        ):
            await there.announce(4002, {A: KEY})
            await here.announce(4001, {B: KEY})
            old = (await anext(raw)).name
            assert (await first(sightings)).addresses == (("127.0.0.1", 4001),)
            for line in (
                "link add one type veth peer name two",
                "addr add 10.5.0.1/24 dev one",
                "link set one up",
            ):
                process = await asyncio.create_subprocess_exec("ip", *line.split())
                assert await process.wait() == 0
            async with asyncio.timeout(10):
                while ("10.5.0.1", 4001) not in (await first(sightings)).addresses:
                    pass
                seen = [await anext(raw)]
                while not isinstance(seen[-1], Found) or "10.5.0.1" not in seen[-1].addresses:
                    seen.append(await anext(raw))
            assert seen[-1].name != old  # the old one never was on the new network
            assert Lost(old) in seen


def _said(found: Found) -> bytes:
    return bytes.fromhex(found.name) + b"".join(value or b"" for value in found.txt.values())


def test_records_of_all_sizes_are_read_back() -> None:
    """What is packed into strings comes out again, for as many tags as there can be."""
    nonce, filler = bytes(16), secrets.token_bytes(tags.FILLER_BYTES)
    for count in (0, 1, 8, 9, 33, 128, 500):
        peers = [KnownPeer(DeviceId(secrets.token_bytes(32)), KEY) for _ in range(count)]
        told = tags.make_tags(A, peers, nonce, 1, filler)
        packed = net_lan._packed(nonce, told)
        assert all(len(key) + 1 + len(value) <= 255 for key, value in packed.items())
        assert net_lan._unpacked(dict(packed.items())) == (nonce, told)


def test_records_of_another_form_are_ignored() -> None:
    """No nonce, a short one, half a tag, or more tags than there can be: not ours."""
    size = limits.TAG_BYTES
    wrong: list[dict[bytes, bytes | None]] = [
        {},
        {b"n": None},
        {b"n": b"short"},
        {b"n": bytes(16), b"t0": bytes(size + 1)},
        {b"n": bytes(16), **{b"t%d" % n: bytes(252) for n in range(4)}},
    ]
    assert [net_lan._unpacked(txt) for txt in wrong] == [None] * len(wrong)


@on_loopback
async def test_a_slot_is_offered_found_and_withdrawn() -> None:
    """Who looks for a slot finds where it is offered, first or later; nobody else's; and the
    words taken nearby are known as long as they are."""
    async with two() as (one, other), PairingSlots(one) as sharing, PairingSlots(other) as near:
        offered = await sharing.offer("apple", 4001)
        assert set(offered.info.properties) == {b"s"}
        async with aclosing(near.look("apple", 10)) as candidates:
            candidate = await anext(candidates)
        assert candidate == Candidate("127.0.0.1", 4001, offered.name)
        await until(lambda: near.seen_slots() == {"apple"} == sharing.seen_slots())
        async with aclosing(near.look("pear", 10)) as candidates:
            pending = asyncio.ensure_future(anext(candidates))
            later = await sharing.offer("pear", 4002)
            assert (await pending).port == 4002
            assert (await pending).name == later.name
        await offered.withdraw()
        await until(lambda: near.seen_slots() == {"pear"} == sharing.seen_slots())


@on_loopback
async def test_a_look_ends_when_its_time_is_over() -> None:
    """A slot nobody offers is looked for so long, and no error ends it."""
    async with Lan() as one:
        slots = PairingSlots(one)
        started = time.monotonic()
        assert [found async for found in slots.look("nothing", 0.3)] == []
        assert 0.3 <= time.monotonic() - started < 2.0


@on_loopback
async def test_slot_words_of_strangers_are_words() -> None:
    """A record whose slot is no word is not counted as one."""
    async with two() as (one, other), PairingSlots(other) as near:
        for name, word in {"x": b"\x1b[2J", "y": b"", "z": b"a" * 99, "w": b"\xc3\xa9"}.items():
            await one.announce(net_lan.PAIRING_TYPE, name, 1, {b"s": word})
        await one.announce(net_lan.PAIRING_TYPE, "good", 1, {b"s": b"Apple"})
        await until(lambda: near.seen_slots() == {"apple"})


async def test_a_pace_lets_a_burst_through_and_then_so_many_a_second() -> None:
    """A second's worth passes at once, what comes after waits."""
    pace = net_lan.Pace(100)
    loop = asyncio.get_running_loop()
    started = loop.time()
    for _ in range(95):
        await pace.turn()
    assert loop.time() - started < 0.2
    for _ in range(20):
        await pace.turn()
    assert loop.time() - started > 0.1
