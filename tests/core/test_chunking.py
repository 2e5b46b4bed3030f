"""core.chunking: deterministic, complete, bounded for any content, and stable under edits."""

from __future__ import annotations

import random

import pytest
from blake3 import blake3

from p2psync.core.chunking import (
    GIB,
    KIB,
    LARGEST_CHUNK,
    LARGEST_FILE,
    MANIFEST_CHUNKS,
    MIB,
    Chunker,
    parameters,
)
from p2psync.protocol import limits


def cut_in_pieces(data: bytes, pieces: list[int]) -> list[int]:
    """Cut data that arrives in pieces of these sizes, then the rest at once."""
    chunker = Chunker(len(data))
    sizes: list[int] = []
    begin = end = 0
    for piece in [*pieces, len(data)]:
        end = min(len(data), end + piece)
        new = chunker.cut(memoryview(data)[begin:end], last=end == len(data))
        sizes += new
        begin += sum(new)
        if end == len(data):
            break
    return sizes


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes without structure, the same every time."""
    return blake3(seed.to_bytes(8, "big")).digest(size)


def test_a_manifest_fits_the_protocol() -> None:
    """The budget and the greatest chunk are within what the protocol carries."""
    assert MANIFEST_CHUNKS <= limits.CHUNKS_PER_MANIFEST
    assert LARGEST_CHUNK + 64 * KIB <= limits.DATA_FRAME
    assert MANIFEST_CHUNKS * (32 + 5) < limits.CONTROL_FRAME


def test_average_by_size() -> None:
    """64 KiB up to 1.25 GiB, then doubling to 2 MiB at 40 GiB, then fixed pieces, then refused;
    a file of a round size may grow a little without being cut anew."""
    edge = 5 * GIB // 4
    sizes = (0, 1, GIB, GIB + MIB, edge, edge + 1, 2 * GIB, 2 * GIB + MIB, 8 * GIB, 40 * GIB)
    averages = [parameters(size).average // KIB for size in sizes]
    assert averages == [64, 64, 64, 64, 64, 128, 128, 128, 512, 2048]
    assert parameters(40 * GIB + 1).average == parameters(LARGEST_FILE).average == 0
    with pytest.raises(ValueError, match="larger than"):
        parameters(LARGEST_FILE + 1)
    with pytest.raises(ValueError, match="larger than"):
        Chunker(LARGEST_FILE + 1)


@pytest.mark.parametrize("edge", [0, 1, 16 * KIB, 64 * KIB, 256 * KIB])
@pytest.mark.parametrize("beside", [-1, 0, 1])
def test_r06_sizes_at_the_edges(edge: int, beside: int) -> None:
    """Files exactly at the smallest, average and greatest chunk, and one beside, add up."""
    size = max(0, edge + beside)
    for data in (noise(size), bytes(size)):
        sizes = cut_in_pieces(data, [])
        assert sum(sizes) == size
        assert all(0 < chunk <= 256 * KIB for chunk in sizes)
        assert all(chunk >= 16 * KIB for chunk in sizes[:-1])


@pytest.mark.parametrize("seed", range(4))
def test_r08_pieces_do_not_matter(seed: int) -> None:
    """The same bytes are cut at the same places however they arrive, and none is left out."""
    data = noise(3 * MIB, seed)
    random_sizes = random.Random(seed)
    whole = cut_in_pieces(data, [])
    assert sum(whole) == len(data)
    for _ in range(5):
        pieces = [random_sizes.randint(1, 700 * KIB) for _ in range(40)]
        assert cut_in_pieces(data, pieces) == whole


def test_an_edit_moves_only_what_it_touched() -> None:
    """A byte inserted in front leaves nearly all chunks as they were."""
    data = noise(4 * MIB)
    names = []
    for version in (data, b"x" + data):
        sizes = cut_in_pieces(version, [])
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        names.append(
            {blake3(version[e - s : e]).digest() for s, e in zip(sizes, ends, strict=True)}
        )
    assert len(names[0] & names[1]) >= len(names[0]) - 2


def test_o06_content_without_cut_points_is_bounded() -> None:
    """All zeros are cut at the greatest size."""
    assert set(cut_in_pieces(bytes(4 * MIB), [])) == {256 * KIB}


def smallest_period() -> bytes:
    """16 KiB that, repeated, are cut as early as a chunk may end."""
    chunker = Chunker(GIB)
    block = bytearray(16 * KIB)
    for seed in range(100_000):
        block[:64] = noise(64, seed)
        data = bytes(block) * 17
        if chunker.cut(memoryview(data), last=False)[:1] and (
            Chunker(GIB).cut(memoryview(data), last=False)[0] <= 16 * KIB + 64
        ):
            return bytes(block)
    raise AssertionError("no such block among so many cannot be")


@pytest.mark.slow
def test_o06_content_made_of_smallest_chunks_fits_a_manifest() -> None:
    """Bytes arranged so that every chunk is as small as can be do not break the budget."""
    piece = memoryview(smallest_period() * 64)
    chunker = Chunker(GIB)
    count = done = 0
    pending = 0
    while done < GIB:
        last = GIB - done <= len(piece)
        sizes = chunker.cut(piece[pending % (16 * KIB) :][: GIB - done], last=last)
        count += len(sizes)
        done += sum(sizes)
        pending = done
    assert done == GIB
    assert GIB // (64 * KIB) < count <= MANIFEST_CHUNKS


def test_a_file_that_grows_while_it_is_cut_does_no_harm() -> None:
    """More bytes than announced are cut all the same: the look afterwards will refuse them."""
    data = memoryview(noise(2 * MIB))
    assert sum(Chunker(100).cut(data, last=True)) == len(data)


def test_pieces_of_a_huge_file_are_fixed() -> None:
    """Above 40 GiB chunks end at multiples of the greatest size."""
    data = memoryview(bytes(3 * LARGEST_CHUNK - 1))
    chunker = Chunker(41 * GIB)
    assert chunker.cut(data, last=False) == [LARGEST_CHUNK] * 2
    assert chunker.cut(data[:5], last=True) == [5]
    assert chunker.cut(data[:0], last=True) == []
