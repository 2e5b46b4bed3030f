"""Messages in slots: whole, once, in both directions, and bounded."""

from __future__ import annotations

import base64
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery import mailbox
from discovery.mailbox import Assembly, Part, Slot
from tests.discovery.speaker import Speaker
from tests.support.inside import on_loopback
from tests.support.netns import Lan
from tests.support.require import require

Txt = dict[bytes, bytes | None]


SLOT = Slot("slot")


def records(data: bytes) -> list[tuple[str, Txt]]:
    """Cut a message as `MdnsMailbox.put` does."""
    cut = SLOT.cut(secrets.token_bytes(8), data)
    return [(name, dict(mailbox._txt(part).items())) for name, part in cut]


@given(st.binary(min_size=1, max_size=9_000), st.randoms(use_true_random=False))
def test_parts_in_any_order_and_repeated_give_the_message_once(
    data: bytes, chance: object
) -> None:
    """Whatever order and repetition, the message comes exactly once, at its last part; and
    also when it is put twice."""
    shuffled = records(data) * 2
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assembly = Assembly(SLOT)
    added = [assembly.add(name, txt) for name, txt in [*shuffled, *records(data)]]
    assert [message for message in added if message is not None] == [data]


def test_a_slot_shows_nothing_of_itself() -> None:
    """The same message in the same slot has other names each time, known only to the slot."""
    (first, _), (second, _) = (records(b"data")[0] for _ in range(2))
    assert not set(first.split("-")[:3]) & set(second.split("-")[:3])
    assert SLOT.holds(first)
    assert SLOT.holds(second)
    assert not Slot("another").holds(first)
    assert Assembly(Slot("another")).add(first, {b"0": b"data"}) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "hello",
        "0" * 24,
        f"{'0' * 16}-{'0' * 16}-{'0' * 16}-1-1",  # numbers count from zero
        f"{'0' * 16}-{'0' * 16}-{'0' * 16}-0-67",  # more than 64 KiB
        f"{'0' * 16}-{'0' * 16}-{'0' * 16}-0-0",
        f"{'0' * 16}-{'0' * 16}-{'0' * 16}--1-1",
        f"{'0' * 16}-{'0' * 16}-{'0' * 16}-\u0660-1",
        f"{'G' * 16}-{'0' * 16}-{'0' * 16}-0-1",
        f"x{'0' * 16}-{'0' * 16}-{'0' * 16}-0-1",
        f"{'0' * 16}-{'0' * 16}-{'0' * 16}-0-1\n",
    ],
)
def test_what_is_no_part_is_ignored(name: str) -> None:
    """A name that no honest sender makes starts nothing."""
    assert Part.parse(name) is None
    assert Assembly(SLOT).add(name, {b"0": b"x"}) is None


def test_a_forged_part_spoils_nothing_for_ever() -> None:
    """A part that is not the message's own keeps it back until the real one comes."""
    data = secrets.token_bytes(2_500)
    cut = records(data)
    assembly = Assembly(SLOT)
    assert assembly.add(cut[0][0], {b"0": b"forged"}) is None
    assert [assembly.add(*part) for part in cut[1:]] == [None] * (len(cut) - 1)
    assert assembly.add(*cut[0]) == data


def test_unfinished_messages_are_bounded() -> None:
    """Ten thousand messages that never end hold no more than a few at a time."""
    assembly = Assembly(SLOT)
    for _ in range(10_000):
        (name, _), _ = SLOT.cut(secrets.token_bytes(8), bytes(1_500))
        assembly.add(name, {b"0": b"x" * 5_000})
    assert len(assembly._pending) <= mailbox.PENDING
    assert all(len(p) <= 1_000 for parts in assembly._pending.values() for p in parts.values())


@pytest.mark.slow
def test_thirty_kilobytes_in_both_directions() -> None:
    """A message of 30 KB crosses the LAN and a reply of as much comes back, within seconds,
    with all TCP dropped on both hosts."""
    require("netns", "multicast", "nft")
    with Lan("a", "b") as lan:
        for host in lan.hosts:
            lan.block_tcp(host, both=True)
        a, b = Speaker(lan, "a").ready(), Speaker(lan, "b").ready()
        a.tell("watch", slot="to a")
        b.tell("watch", slot="to b")
        for sender, receiver, slot in ((a, b, "to b"), (b, a, "to a")):
            data = base64.b64encode(secrets.token_bytes(30_000)).decode()
            sender.tell("put", slot=slot, data=data)
            assert receiver.hear("message", timeout=5, slot=slot)["data"] == data


@pytest.mark.slow
def test_a_message_put_before_anybody_watched_is_taken() -> None:
    """The largest message waits in its slot, and who comes later gets it whole."""
    require("netns", "multicast")
    with Lan("a", "b") as lan:
        a = Speaker(lan, "a").ready()
        data = base64.b64encode(secrets.token_bytes(mailbox.MESSAGE_BYTES)).decode()
        a.tell("put", slot="s", data=data)
        a.tell("watch", slot="s")
        a.hear("watching")
        b = Speaker(lan, "b").ready()
        b.tell("watch", slot="s")
        assert b.hear("message", timeout=10)["data"] == data


@on_loopback
async def test_a_slot_is_private_to_its_name_and_ends_with_its_time() -> None:
    """Another slot hears nothing; an expired message is gone; wrong sizes are refused."""
    async with mailbox.Lan() as here, mailbox.Lan() as there:
        ours, theirs = mailbox.MdnsMailbox(here), mailbox.MdnsMailbox(there)
        for slot, data in (("", b"x"), ("s" * 64, b"x"), ("s", b""), ("s", bytes(65_537))):
            with pytest.raises(ValueError, match="has 1 to"):
                await ours.put(slot, data)
        await ours.put("expired", b"gone", ttl_s=0.05)
        await ours.put("other", b"not for us")
        while len(here._registrations) > 1:
            await mailbox.asyncio.sleep(0.01)
        handle = await ours.put("mine", b"hello")
        watch = theirs.watch("mine")
        assert await anext(watch) == b"hello"
        await handle.withdraw()
        await ours.put("mine", b"again")
        assert await anext(watch) == b"again"
        await watch.aclose()
