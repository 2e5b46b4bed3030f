"""Chunks with their bytes, and runs of neighbours among them, for few and large calls.

1 GiB is 13,500 chunks; a call of the kernel and a turn of the interpreter for each of them cost
more than the bytes do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Final

from blake3 import blake3

from p2psync.fs import syscalls
from p2psync.fs.staging import ZEROS
from p2psync.protocol import limits

Chunk = tuple[int, int, bytes]
"""Offset and size in bytes, BLAKE3-256 of the bytes."""

Piece = tuple[Chunk, bytes | memoryview]
"""A chunk and its bytes."""

_RUN: Final = 1 * limits.MIB  # of neighbouring chunks, copied in one go
_FEW: Final = 64  # bytes that nearly always tell that not all are zeros


def is_true(piece: Piece) -> bool:
    """Say whether the bytes are the chunk's."""
    (_, size, wanted), data = piece
    return len(data) == size and blake3(data).digest() == wanted


def is_zeros(data: bytes | memoryview) -> bool:
    """Say whether there is nothing but zeros."""
    return not any(data[:_FEW]) and all(
        data[at : at + len(ZEROS)] == ZEROS[: len(data) - at]
        for at in range(0, len(data), len(ZEROS))
    )


def joined(pieces: Iterable[Piece]) -> Iterator[tuple[int, bytes]]:
    """Yield offset and bytes of what stands together."""
    parts: list[bytes | memoryview] = []
    begin = end = 0
    for (offset, size, _), data in pieces:
        if parts and offset != end:
            yield begin, b"".join(parts)
            parts = []
        begin = begin if parts else offset
        parts.append(data)
        end = offset + size
    if parts:
        yield begin, b"".join(parts)


def runs(chunks: Iterable[tuple[int, Chunk]]) -> Iterator[tuple[int, list[Chunk]]]:
    """Yield where runs of chunks that are neighbours in both files begin in the source."""
    run: list[Chunk] = []
    begin = end = 0
    for at, chunk in chunks:
        if run and (
            at != end or chunk[0] != run[-1][0] + run[-1][1] or end - begin + chunk[1] > _RUN
        ):
            yield begin, run
            run = []
        begin = begin if run else at
        run.append(chunk)
        end = at + chunk[1]
    if run:
        yield begin, run


def pieces_at(file: int, at: int, run: list[Chunk], *, once: bool = False) -> Iterator[Piece]:
    """Read a run of chunks in one go; those that cannot be read come out too short.

    once: nobody is likely to read this part of the file again soon.
    """
    size = sum(size for _, size, _ in run)
    try:
        data = memoryview(_read_once(file, at, size) if once else read(file, at, size))
    except OSError:  # a bad sector, or a directory: as good as other bytes
        data = memoryview(b"")
    begin = 0
    for chunk in run:
        yield chunk, data[begin : begin + chunk[1]]
        begin += chunk[1]


def _read_once(file: int, offset: int, size: int) -> bytes | memoryview:
    data = syscalls.read_uncached(file, size, offset)
    return data if len(data) == size else read(file, offset, size)


def read(file: int, offset: int, size: int) -> bytes:
    """Read `size` bytes, fewer only at the end of the file. Raises OSError."""
    parts: list[bytes] = []
    while size and (part := os.pread(file, size, offset)):
        parts.append(part)
        offset, size = offset + len(part), size - len(part)
    return b"".join(parts)
