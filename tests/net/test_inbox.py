"""From a peer's bytes to messages: in order, whole, and little for strangers."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.errors import ChannelClosedError, RemoteProtocolError
from p2psync.net.inbox import Inbox, Intake
from p2psync.protocol import limits
from p2psync.protocol.framing import frame


class Stream:
    """An intake and what it complained about."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.intake = Intake(lambda: None, self.violated)

    def violated(self, what: str) -> None:
        """As a channel does it."""
        self.violations.append(what)
        self.intake.inbox.end(lambda: RemoteProtocolError(what))


@given(
    sizes=st.lists(st.integers(1, 600), min_size=1, max_size=6),
    large=st.integers(1, 2 * limits.CONTROL_FRAME),
    cuts=st.lists(st.integers(1, 5_000), min_size=1, max_size=40),
    ahead=st.booleans(),
)
def test_n11_however_the_stream_is_cut_all_messages_arrive(
    sizes: list[int], large: int, cuts: list[int], ahead: bool
) -> None:
    """Small messages before the peer is admitted, then any: none is lost or refused."""

    async def run() -> None:
        stream = Stream()
        messages = [bytes([n]) * size for n, size in enumerate(sizes)]
        messages.append(b"\xff" * large)  # right behind the one that gets it admitted
        rest = b"".join(map(frame, messages))
        pieces = []
        for cut in cuts:
            pieces.append(rest[:cut])
            rest = rest[cut:]
        pieces.append(rest)
        received = []
        feeding = iter(pieces)
        if ahead:
            for piece in feeding:
                stream.intake.feed(piece)
        for _ in messages:
            waiting = asyncio.create_task(stream.intake.inbox.get())
            await asyncio.sleep(0)
            while not waiting.done():
                await asyncio.sleep(0)
                if not waiting.done():
                    stream.intake.feed(next(feeding))
            received.append(await waiting)
            if len(received) == len(sizes):
                stream.intake.admit()
        assert received == messages
        assert not stream.violations
        assert stream.intake.waiting_bytes == 0

    asyncio.run(run())


async def test_t10_a_stranger_makes_us_hold_little() -> None:
    """Its second message is not even cut before the first is taken; too much is told once."""
    stream = Stream()
    stream.intake.feed(frame(b"one") + frame(b"two") + b"\xff\xff\xff\xff")
    assert stream.intake.holding
    assert await stream.intake.inbox.get() == b"one"
    assert await stream.intake.inbox.get() == b"two"
    with pytest.raises(RemoteProtocolError):
        await stream.intake.inbox.get()
    assert len(stream.violations) == 1


async def test_t10_a_stranger_that_never_ends_a_message() -> None:
    """Four KiB and no more, however they come."""
    stream = Stream()
    for _ in range(limits.UNAUTHENTICATED_BYTES // 64):
        stream.intake.feed(frame(bytes(60)))
        await stream.intake.inbox.get()
    stream.intake.feed(b"\x00")
    with pytest.raises(RemoteProtocolError):
        await stream.intake.inbox.get()


async def test_what_was_put_before_the_end_is_received() -> None:
    """The end comes after the messages before it, and again at every further call."""
    inbox = Inbox()
    inbox.put(b"last")
    inbox.end(lambda: ChannelClosedError("over"))
    inbox.put(b"too late")
    assert await inbox.get() == b"last"
    for _ in range(2):
        with pytest.raises(ChannelClosedError, match="over"):
            await inbox.get()
