"""Frames: any split gives the same messages; no length surprises anyone."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.errors import LocalProtocolError, RemoteProtocolError
from p2psync.protocol import limits
from p2psync.protocol.framing import DATA_BIT, FrameReader, frame, header


@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=8),
    st.lists(st.integers(1, 40), max_size=60),
)
def test_any_split_of_the_stream_gives_the_same_messages(messages, cuts) -> None:
    """Messages arrive whole and in order, however the stream was cut."""
    stream = b"".join(map(frame, messages))
    reader, found = FrameReader(), []
    for cut in cuts:
        found += reader.feed(stream[:cut])
        stream = stream[cut:]
    found += reader.feed(stream)
    assert found == messages
    assert reader.buffered == 0


def test_bytes_of_an_unfinished_frame_are_counted() -> None:
    """An owner can see how much of an unfinished frame is held."""
    reader = FrameReader()
    assert reader.feed(frame(b"abc") + frame(b"defg")[:6]) == [b"abc"]
    assert reader.buffered == 6


@pytest.mark.parametrize(
    "word",
    [
        pytest.param(0, id="empty"),
        pytest.param(DATA_BIT, id="empty data"),
        pytest.param(limits.UNAUTHENTICATED_BYTES + 1, id="over the limit"),
        pytest.param(DATA_BIT | 5, id="small in the data class"),
        pytest.param(0xFFFFFFFF, id="huge"),
        pytest.param(0x7FFFFFFF, id="huge control"),
    ],
)
def test_t21_a_bad_length_is_refused_at_the_header(word: int) -> None:
    """Nothing is kept or waited for when a header is wrong; the stream is dead for good."""
    reader = FrameReader()
    head = word.to_bytes(4, "big")
    assert reader.feed(head[:3]) == []
    with pytest.raises(RemoteProtocolError):
        reader.feed(head[3:])
    with pytest.raises(RemoteProtocolError):
        reader.feed(b"more")


@pytest.mark.parametrize(
    ("length", "flag"),
    [
        (limits.CONTROL_FRAME, DATA_BIT),
        (limits.CONTROL_FRAME + 1, 0),
        (limits.MESSAGE_BYTES + 1, DATA_BIT),
    ],
)
def test_t21_a_frame_of_the_wrong_class_is_refused(length: int, flag: int) -> None:
    """Control frames end at 1 MiB, data frames begin there and end at 4 MiB."""
    reader = FrameReader(limits.MESSAGE_BYTES)
    with pytest.raises(RemoteProtocolError):
        reader.feed((length | flag).to_bytes(4, "big"))


def test_the_limit_can_be_raised() -> None:
    """After authentication the same reader takes the largest message there is."""
    reader = FrameReader()
    reader.limit = limits.MESSAGE_BYTES
    message = bytes(limits.MESSAGE_BYTES)
    assert reader.feed(frame(message)) == [message]


@pytest.mark.parametrize("length", [0, limits.MESSAGE_BYTES + 1])
def test_nothing_longer_than_a_frame_is_sent(length: int) -> None:
    """Our own mistake is a bug, not a message."""
    with pytest.raises(LocalProtocolError):
        header(length)


def test_a_large_frame_in_small_pieces_costs_no_more_than_its_bytes() -> None:
    """4 MiB in 1 KiB pieces take no quadratic time: well below a second, with room to spare."""
    stream = frame(bytes(limits.DATA_FRAME))
    reader = FrameReader(limits.MESSAGE_BYTES)
    before = time.process_time()
    found = [m for i in range(0, len(stream), 1024) for m in reader.feed(stream[i : i + 1024])]
    assert len(found) == 1
    assert time.process_time() - before < 1.0
