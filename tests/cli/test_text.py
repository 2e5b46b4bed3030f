"""Sizes and times in words."""

from __future__ import annotations

import pytest

from p2psync.cli import text
from p2psync.control.messages import Offer


@pytest.mark.parametrize(
    ("size_bytes", "said"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1_000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (3_100_000_000, "3.1 GB"),
        (2**63, "9.2 EB"),
    ],
)
def test_sizes_are_decimal(size_bytes: int, said: str) -> None:
    """As disks are sold, never 1000.0 of anything."""
    assert text.size(size_bytes) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (31.2, "31 s"),
        (59.6, "1 min"),
        (600, "10 min"),
        (61, "1 min 01 s"),
        (3_720, "1 h 02 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, said: str) -> None:
    """Exact enough for a person."""
    assert text.duration(seconds) == said


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (b"/home/a/photos", "./photos"),
        (b"/home/a", "/home/a"),
        (b"/home/ab", "/home/ab"),
        (b"/home/a/x\xff", "./x\\xff"),
    ],
)
def test_a_place_is_named_from_where_one_is(path: bytes, said: str) -> None:
    """As one would type it."""
    assert text.place(path, b"/home/a") == said
    assert text.place(b"/x", b"/") == "./x"


def test_an_offer_that_is_still_counted_says_so() -> None:
    """Nobody takes a number for the whole that is not."""
    assert "so far" in text.offer(Offer("ABCDEFGH", "pi", "x", 1, 1, False))
