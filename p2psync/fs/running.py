"""The hash of a whole file, kept up while its pieces are written: nobody reads it again.

Promise: `digest` is of the bytes that were last handed in, and of those on the disk where none
were. Pieces come in about the order of the file; those ahead of their turn wait here, up to a
bound. What does not fit into that picture is read from the disk at the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from blake3 import blake3

from p2psync.protocol import limits

_AHEAD_BYTES: Final = 32 * limits.MIB  # more than is asked for at once, and copied at once


class RunningHash:
    """BLAKE3 of one file under way; pieces may be handed in by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hasher = blake3()
        self._done = 0  # the bytes at the front of the file that are hashed
        self._ahead: dict[int, bytes | memoryview] = {}
        self._waiting = 0  # bytes in `_ahead`
        self._useless = False

    def add(self, offset: int, data: bytes | memoryview) -> None:
        """Take in what stands in the file at an offset from now on."""
        with self._lock:
            if self._useless:
                return
            if self._overlaps(offset, offset + len(data)):
                self._give_up()  # something was written twice: only the disk knows the order
                return
            self._ahead[offset] = data
            self._waiting += len(data)
            while (piece := self._ahead.pop(self._done, None)) is not None:
                self._hasher.update(piece)
                self._done += len(piece)
                self._waiting -= len(piece)
            if self._waiting > _AHEAD_BYTES:
                self._ahead.clear()
                self._waiting = 0

    def digest(self, read: Callable[[int], bytes | memoryview]) -> bytes:
        """Return the hash of the whole.

        read: returns the next bytes of the file at an offset, none at its end. May raise.
        """
        with self._lock:
            if self._ahead:  # beyond a gap: what is missing here stands on the disk
                self._ahead.clear()
                self._waiting = 0
            while piece := read(self._done):
                self._hasher.update(piece)
                self._done += len(piece)
            return self._hasher.digest()

    def _overlaps(self, begin: int, end: int) -> bool:
        return begin < self._done or any(
            at < end and begin < at + len(data) for at, data in self._ahead.items()
        )

    def _give_up(self) -> None:
        self._useless = True
        self._hasher, self._done, self._waiting = blake3(), 0, 0
        self._ahead.clear()
