"""Floods: whatever pours in costs a bounded amount of memory, and the honest go on."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from p2psync.engine.conversation import BULK
from p2psync.engine.link import GIVING_AT_ONCE
from p2psync.net.certificate import Certificate
from p2psync.net.webrtc import WebRtcEnd
from p2psync.protocol import codec, limits
from p2psync.protocol.messages import AskFiles, Detach, Files, Ping
from tests.support.hostile import Lab, lab

HERE = ("127.0.0.1",)
LONG_S = 20.0
STRAYS, STRAY_BYTES = 40_000, 1_200
GROWTH = 24 * limits.MIB


def resident() -> int:
    """Return the bytes of memory this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
async def test_t11_forty_thousand_stray_datagrams_cost_nothing() -> None:
    """A stranger who knows the port of a live data channel pours datagrams into it, of all
    kinds: none is kept, and what the peers say arrives meanwhile."""
    offering = WebRtcEnd(Certificate(), offering=True, addresses=HERE)
    answering = WebRtcEnd(Certificate(), offering=False, addresses=HERE)
    offer, answer = await offering.gather(), await answering.gather()
    one, other = await asyncio.gather(
        offering.connect(answer, LONG_S), answering.connect(offer, LONG_S)
    )
    one.admit()
    other.admit()
    target = ("127.0.0.1", int(one.address.rpartition(":")[2]))
    kinds = (
        b"\x00\x01\x04\x9c\x21\x12\xa4\x42",
        b"\x16\xfe\xfd",
        b"\x17\xfe\xfd",
        b"\x80",
        b"\xff",
    )
    strays = [kind + os.urandom(STRAY_BYTES - len(kind)) for kind in kinds]
    before = resident()
    with socket.socket(type=socket.SOCK_DGRAM) as stranger:
        stranger.setblocking(False)
        for burst in range(STRAYS // 100):
            for number in range(100):
                stranger.sendto(strays[number % len(strays)], target)
            await asyncio.sleep(0)
            if burst % 100 == 0:
                await one.send(b"%d" % burst)
                assert await other.receive() == b"%d" % burst
    assert resident() - before < GROWTH
    await one.send(b"after")
    assert await other.receive() == b"after"
    await asyncio.gather(one.close(), other.close())


async def settled_sum(bench: Lab) -> int:
    """Return how many bytes of contents were read for peers, once no more are."""
    replica = bench.victim.replica
    before, same = -1, 0
    while same < 10:
        await replica.changed.wait(0.02)
        same = same + 1 if replica.provided_bytes == before else 0
        before = replica.provided_bytes
    return before


async def test_t24_contents_for_who_does_not_read_are_not_read(tmp_path: Path) -> None:
    """Sixty requests for twenty megabytes each, and nobody takes the answers: a handful of
    answers wait, the rest is not even read from the disk."""
    async with lab(tmp_path) as bench:
        blocks = [os.urandom(100_000) for _ in range(200)]
        for number, block in enumerate(blocks):
            (bench.victim.root / str(number)).write_bytes(block)
        await bench.cluster.settled()
        given = bench.victim.replica.provided_bytes
        villain = bench.villain()
        await villain.greet()
        await villain.deaf()
        contents = [bench.content(block) for block in blocks]
        for number in range(limits.REQUESTS_OPEN - 4):
            await villain.say(AskFiles(number, bench.folder, contents))
        waiting = await settled_sum(bench) - given
        answers = GIVING_AT_ONCE + BULK + 1
        assert waiting <= answers * (limits.ANSWER_BYTES + limits.SMALL_FILE) + 2 * limits.MIB
        (bench.honest.root / "meanwhile").write_text("x")
        await bench.shows(b"meanwhile")
        await villain.leave()
        await bench.unharmed()


SMALL = {
    "pings": codec.encode(Ping(1)),
    "answers nobody asked for": codec.encode(Files(1, [], [], True)),
    "folders nobody has": codec.encode(Detach(b"n" * 16)),
    "requests for nothing": codec.encode(AskFiles(1, b"n" * 16, [])),
}


@pytest.mark.parametrize("message", SMALL.values(), ids=SMALL.keys())
async def test_t24_thirty_thousand_small_messages_leave_nothing_behind(
    tmp_path: Path, message: bytes
) -> None:
    """They are taken one after the other: no memory, no task is left of them, and an honest
    peer is heard in between."""
    async with lab(tmp_path) as bench:
        villain = bench.villain()
        await villain.greet()
        before, tasks = resident(), len(asyncio.all_tasks())
        for number in range(30_000):
            await villain.raw(message)
            if number == 15_000:
                (bench.honest.root / "meanwhile").write_text("x")
        await bench.shows(b"meanwhile")
        assert not villain.cut_off
        assert resident() - before < GROWTH
        assert len(asyncio.all_tasks()) <= tasks + 4
        await villain.leave()
        await bench.unharmed()
