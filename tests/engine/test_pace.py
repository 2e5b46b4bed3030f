"""engine.pace: answers grow only on a line that has proven fast."""

from __future__ import annotations

import pytest

from p2psync.engine.pace import Pace
from p2psync.protocol import limits


@pytest.mark.parametrize(
    ("bytes_per_s", "expected"),
    [
        (10_000, limits.ANSWER_BYTES),
        (1_250_000, limits.ANSWER_BYTES),
        (12_500_000, 625_000),
        (500_000_000, limits.ANSWER_BYTES_MOST),
    ],
)
def test_an_answer_passes_in_the_same_time(bytes_per_s: int, expected: int) -> None:
    """50 ms of the line, never less than what a slow one carries, nor more than is useful."""
    pace = Pace()
    for _ in range(200):
        pace.sent(limits.ANSWER_BYTES, limits.ANSWER_BYTES / bytes_per_s)
    assert pace.answer_bytes == pytest.approx(expected, rel=0.01)


def test_what_only_filled_a_buffer_proves_nothing() -> None:
    """The first megabytes are taken at once whatever the line is."""
    pace = Pace()
    for _ in range(3 * limits.MIB // limits.ANSWER_BYTES):
        pace.sent(limits.ANSWER_BYTES, 0.0)
    assert pace.answer_bytes == limits.ANSWER_BYTES
