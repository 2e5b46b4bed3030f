"""fs.running: the hash of the whole, whatever the order in which its pieces come."""

from __future__ import annotations

import os
import random

import pytest
from blake3 import blake3

from p2psync.fs import running
from p2psync.fs.running import RunningHash

SIZE = 1000
DATA = os.urandom(20 * SIZE)
WHOLE = blake3(DATA).digest()


def pieces() -> list[tuple[int, bytes]]:
    return [(at, DATA[at : at + SIZE]) for at in range(0, len(DATA), SIZE)]


class Disk:
    """What stands in the file; `asked` are the offsets somebody had to read at."""

    def __init__(self, data: bytes = DATA) -> None:
        self.data = data
        self.asked: list[int] = []

    def read(self, offset: int) -> bytes:
        self.asked.append(offset)
        return self.data[offset : offset + SIZE]


def test_nothing_is_read_again_in_whatever_order_pieces_come() -> None:
    """Only the end of the file is asked for."""
    order = pieces()
    random.Random(7).shuffle(order)
    hashed, disk = RunningHash(), Disk()
    for offset, data in order:
        hashed.add(offset, data)
    assert hashed.digest(disk.read) == WHOLE
    assert disk.asked == [len(DATA)]


def test_what_was_never_handed_in_is_read() -> None:
    """From the first gap on: what comes behind it is not known to be there still."""
    hashed, disk = RunningHash(), Disk()
    for offset, data in pieces():
        if offset != 5 * SIZE:
            hashed.add(offset, data)
    assert hashed.digest(disk.read) == WHOLE
    assert disk.asked[0] == 5 * SIZE


def test_what_was_written_twice_is_read_from_the_disk() -> None:
    """Two writes of one place, in whatever part: only the disk knows which was the last."""
    for again in (0, 19 * SIZE, SIZE // 2):
        hashed, disk = RunningHash(), Disk()
        hashed.add(0, os.urandom(SIZE))
        hashed.add(19 * SIZE, os.urandom(SIZE))
        hashed.add(again, DATA[again : again + SIZE])
        assert hashed.digest(disk.read) == WHOLE
        assert disk.asked[0] == 0


def test_o02_what_is_far_ahead_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory has a bound; the rest is read."""
    monkeypatch.setattr(running, "_AHEAD_BYTES", 3 * SIZE)
    hashed, disk = RunningHash(), Disk()
    for offset, data in reversed(pieces()):
        hashed.add(offset, data)
        assert hashed._waiting <= 3 * SIZE
    assert hashed.digest(disk.read) == WHOLE
    assert len(disk.asked) > 10
