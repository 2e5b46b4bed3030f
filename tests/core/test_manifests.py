"""core.manifests: a difference makes the manifest it was made of, and nothing else passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.core.manifests import Span, chunks_of, combined, difference
from p2psync.core.observed import Manifest

LARGEST = 100


def manifest(chunks: list[int]) -> Manifest:
    """The manifest of chunks of which equal numbers are equal."""
    return Manifest(
        b"".join(bytes([chunk]) * 32 for chunk in chunks), [chunk + 1 for chunk in chunks]
    )


CHUNKS = st.lists(st.integers(0, 9), max_size=30)


@given(CHUNKS, CHUNKS)
def test_a_difference_makes_the_manifest(base: list[int], wanted: list[int]) -> None:
    """Whatever the two have in common; no chunk of the base is told again."""
    fresh, spans = difference(manifest(base), manifest(wanted))
    assert combined(manifest(base), fresh, spans, LARGEST) == manifest(wanted)
    assert spans
    assert not {size - 1 for size in fresh.sizes} & set(base)


def test_an_edit_is_told_briefly() -> None:
    """One chunk replaced in the middle of many, and one put in front."""
    many = list(range(200))
    edited = [250, *many[:100], 251, *many[101:]]
    fresh, spans = difference(manifest(many), manifest(edited))
    assert fresh == manifest([250, 251])
    assert spans == [(1, 0, 100), (1, 101, 99)]


@pytest.mark.parametrize(
    ("fresh", "spans"),
    [
        ([], [(1, 0, 0)]),
        ([5], [(0, 0, 1)]),
        ([5], [(2, 0, 1)]),
        ([], [(0, 0, 4)]),
        ([], [(0, 3, 1)]),
        ([], [(0, 4, 0)]),
        ([], [(0, 0, 3)] * 34),
        ([5] * 101, [(101, 0, 0)]),
    ],
    ids=["fewer", "more", "too few", "beyond", "at the end", "after it", "too many", "long"],
)
def test_t21_a_difference_that_cannot_be_makes_nothing(
    fresh: list[int], spans: list[Span]
) -> None:
    """Chunks that were not told or are left over, chunks the base lacks, too many of them."""
    assert combined(manifest([1, 2, 3]), manifest(fresh), spans, LARGEST) is None


def test_chunks_have_their_places() -> None:
    """One after the other, from the front."""
    assert chunks_of(manifest([3, 1])) == [(0, 4, b"\3" * 32), (4, 2, b"\1" * 32)]
