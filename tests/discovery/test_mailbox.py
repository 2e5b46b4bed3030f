"""Messages in slots: whole, once, in both directions, and bounded."""

from __future__ import annotations

import base64
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery import mailbox
from discovery.mailbox import Assembly, Part, digest_of
from tests.discovery.speaker import Speaker
from tests.support.inside import on_loopback
from tests.support.netns import Lan
from tests.support.require import require

Txt = dict[bytes, bytes | None]


def records(data: bytes) -> list[tuple[str, Txt]]:
    """Cut a message as `MdnsMailbox.put` does."""
    size = mailbox.PART_BYTES
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    cut = []
    for number, part in enumerate(parts):
        txt: Txt = dict(mailbox._txt(part).items())
        cut.append((f"{digest_of(data)}-00000000-{number}-{len(parts)}", txt))
    return cut


@given(st.binary(min_size=1, max_size=9_000), st.randoms(use_true_random=False))
def test_parts_in_any_order_and_repeated_give_the_message_once(
    data: bytes, chance: object
) -> None:
    """Whatever order and repetition, the message comes exactly once, at its last part."""
    shuffled = records(data) * 2
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assembly = Assembly()
    told = [message for name, txt in shuffled if (message := assembly.add(name, txt))]
    assert told == [data]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "hello",
        "0" * 24,
        f"{'0' * 24}-{'0' * 8}-1-1",  # numbers count from zero
        f"{'0' * 24}-{'0' * 8}-0-67",  # more than 64 KiB
        f"{'0' * 24}-{'0' * 8}-0-0",
        f"{'0' * 24}-{'0' * 8}--1-1",
        f"{'0' * 24}-{'0' * 8}-\u0660-1",
        f"{'G' * 24}-{'0' * 8}-0-1",
        f"x{'0' * 24}-{'0' * 8}-0-1",
        f"{'0' * 24}-{'0' * 8}-0-1\n",
    ],
)
def test_what_is_no_part_is_ignored(name: str) -> None:
    """A name that no honest sender makes starts nothing."""
    assert Part.parse(name) is None
    assert Assembly().add(name, {b"0": b"x"}) is None


def test_a_forged_part_spoils_nothing_for_ever() -> None:
    """A part that is not the message's own keeps it back until the real one comes."""
    data = secrets.token_bytes(2_500)
    cut = records(data)
    assembly = Assembly()
    assert assembly.add(cut[0][0], {b"0": b"forged"}) is None
    assert [assembly.add(*part) for part in cut[1:]] == [None] * (len(cut) - 1)
    assert assembly.add(*cut[0]) == data


def test_unfinished_messages_are_bounded() -> None:
    """Ten thousand messages that never end hold no more than a few at a time."""
    assembly = Assembly()
    for _ in range(10_000):
        assembly.add(f"{secrets.token_hex(12)}-00000000-0-2", {b"0": b"x" * 5_000})
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
