"""How much content one message may carry on a line, by how fast messages have passed it."""

from __future__ import annotations

from typing import Final

from p2psync.protocol import limits

_WITHIN_S: Final = 0.05  # what waits behind an answer waits about so long
_SAMPLE: Final = 4 * limits.MIB  # much more than is buffered on the way, which passes at once


class Pace:
    """The size of the answers one peer is given; grows only when the line has proven fast.

    A message is the unit of overtaking, and one that takes longer than `limits.DEAD_AFTER_S`
    looks like death. On a fast line what counts is the work for each: with 1 MiB instead of
    256 KiB a file of 1 GiB took a third less CPU time at both ends.
    """

    def __init__(self) -> None:
        self.answer_bytes = limits.ANSWER_BYTES
        self._bytes = 0
        self._seconds = 0.0

    def sent(self, size: int, took_s: float) -> None:
        """Note that a message was sent, its bytes, and how long it waited for room."""
        self._bytes += size
        self._seconds += took_s
        if self._bytes >= _SAMPLE:
            passes = int(self._bytes * _WITHIN_S / max(self._seconds, 1e-9))
            self.answer_bytes = max(limits.ANSWER_BYTES, min(passes, limits.ANSWER_BYTES_MOST))
            self._bytes, self._seconds = 0, 0.0
