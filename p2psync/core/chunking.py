"""Cuts large files into content-defined chunks, so that an edit moves only what it touched.

FastCDC (2020, normalised chunking 1) by pyfastcdc; `docs/decisions/0002-chunking.md` has the
comparison and the numbers. The receiver assembles by the explicit list of sizes, so these
parameters may change in any version without a change of the protocol.

A manifest must fit one control frame whatever the file holds, also when somebody arranged the
bytes so that every chunk is as small as it can be. So a file has a budget of `MANIFEST_CHUNKS`:
once the rest of the file could not be cut at the average size within what is left of it, the
rest is cut into pieces of the greatest size. Ordinary contents never come near that.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from pyfastcdc import FastCDC

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

MANIFEST_CHUNKS: Final = 24_576
LARGEST_CHUNK: Final = 3_840 * KIB  # one chunk and its framing fit a data frame of 4 MiB
LARGEST_FILE: Final = MANIFEST_CHUNKS * LARGEST_CHUNK  # bytes; 90 GiB

# Up to 40 GiB the average doubles with the size from 64 KiB; what is larger is a disk image,
# which is edited in place, and is cut at fixed places. It doubles beside the round sizes, which
# files have: one that grows beyond such a place is cut anew and travels whole.
_SMALLEST_AVERAGE: Final = 64 * KIB
_FILE_PER_AVERAGE: Final = 20 * KIB  # 64 KiB average up to 1.25 GiB
_LARGEST_AVERAGE: Final = 2 * MIB


class Parameters(NamedTuple):
    """Chunk sizes in bytes; average is 0 where everything is cut into `largest` pieces."""

    smallest: int
    average: int
    largest: int


def parameters(size: int) -> Parameters:
    """Return the chunk sizes for a file of `size` bytes; at most `MANIFEST_CHUNKS` result.

    Raises:
        ValueError: if the file is larger than `LARGEST_FILE`.
    """
    if size > LARGEST_FILE:
        raise ValueError(f"a file of {size} bytes is larger than {LARGEST_FILE}")
    average = _SMALLEST_AVERAGE
    while average * _FILE_PER_AVERAGE < size:
        average *= 2
    if average > _LARGEST_AVERAGE:
        return Parameters(LARGEST_CHUNK, 0, LARGEST_CHUNK)
    return Parameters(average // 4, average, min(4 * average, LARGEST_CHUNK))


class Chunker:
    """Cuts one file, given to it piece by piece from the front; not for several threads.

    The same bytes are cut at the same places however they are divided into pieces.
    """

    def __init__(self, size: int) -> None:
        """Prepare to cut a file that is said to have `size` bytes.

        Raises:
            ValueError: if the file is larger than `LARGEST_FILE`.
        """
        self._parameters = parameters(size)
        smallest, average, largest = self._parameters
        self._budget = MANIFEST_CHUNKS
        self._rest = size
        self._cutter = (
            FastCDC(average, min_size=smallest, max_size=largest) if average else None
        )

    @property
    def largest(self) -> int:
        """Bytes a chunk can have: with fewer than that and not the last, `cut` returns []."""
        return self._parameters.largest

    def cut(self, data: memoryview, last: bool) -> list[int]:
        """Return the sizes of the chunks at the front of `data`, in order.

        Their sum is the number of bytes done with; what remains (less than `largest`) is to
        be given again, at the front of the next piece. With last everything is cut.
        """
        sizes: list[int] = []
        done = 0
        if self._cutter is not None:
            for chunk in self._cutter.cut_buf(data):
                if not self._affordable() or not (last or len(data) - done >= self.largest):
                    break
                done += self._spend(sizes, chunk.length)
        if self._cutter is None or not self._affordable():
            while len(data) - done >= self.largest or (last and done < len(data)):
                done += self._spend(sizes, min(self.largest, len(data) - done))
        return sizes

    def _affordable(self) -> bool:
        """Say whether the rest could be cut at the average size with one chunk to spare.

        While that holds, one more chunk of any size leaves at most `average` bytes per chunk
        still in the budget, and the greatest size is at least that.
        """
        return self._rest <= (self._budget - 1) * self._parameters.average

    def _spend(self, sizes: list[int], size: int) -> int:
        sizes.append(size)
        self._budget -= 1
        self._rest = max(0, self._rest - size)
        return size
