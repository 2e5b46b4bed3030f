"""core.diff: only what is certainly the same is left alone."""

from __future__ import annotations

import stat

import pytest

from p2psync.core.diff import Diff, diff
from p2psync.core.entry import Kind
from p2psync.core.index import Place, Row, Signature

FILE = stat.S_IFREG | 0o644
DIRECTORY = stat.S_IFDIR | 0o755
SEEN = Signature(device=1, inode=2, size=3, mtime_ns=4, ctime_ns=5, mode=FILE)


def row(signature: Signature | None, kind: Kind = Kind.FILE) -> Row:
    """A row made from an object with this signature."""
    place = Place(kind, b"c" * 32, 3, b"", False, 4, frozenset({(1, 1)}), b"x")
    return Row(place, signature)


def test_an_equal_signature_is_the_same() -> None:
    """What lstat says is all equal: no look."""
    assert diff([(b"x", SEEN)], {b"x": row(SEEN)}) == Diff([], [], [], 1, [], {})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"ctime_ns": 6}, id="a05-a-spreadsheet-keeps-mtime-and-size"),
        pytest.param({"mtime_ns": 1}, id="a06-an-older-mtime"),
        pytest.param({"inode": 9, "ctime_ns": 6}, id="a05-replaced-with-equal-times"),
        pytest.param({"inode": 2, "ctime_ns": 7}, id="h15-the-inode-was-used-again"),
        pytest.param({"size": 4}, id="grown"),
        pytest.param({"mode": FILE | 0o111}, id="a16-executable"),
        pytest.param({"device": 8}, id="j05-another-disk"),
        pytest.param({"mtime_ns": -1}, id="k07-before-1970"),
    ],
)
def test_any_difference_is_looked_at(change: dict[str, int]) -> None:
    """Each single field of the signature is enough to look again."""
    assert diff([(b"x", SEEN._replace(**change))], {b"x": row(SEEN)}).changed == [b"x"]


def test_a07_what_cannot_be_trusted_is_looked_at() -> None:
    """A row without a signature is looked at whatever lstat says."""
    assert diff([(b"x", SEEN)], {b"x": row(None)}).changed == [b"x"]
    assert diff([(b"x", SEEN)], {b"x": row(None, Kind.DIRECTORY)}).changed == [b"x"]


def test_new_and_missing() -> None:
    """A name without a row is looked at; a row without a name is missing."""
    assert diff([(b"new", SEEN)], {b"old": row(SEEN)}) == Diff(
        [b"new"], [b"old"], [], 0, [3], {}
    )


def test_a_directory_is_compared_by_identity() -> None:
    """Its times change with its children; another directory in its place is looked at."""
    seen = SEEN._replace(mode=DIRECTORY)
    rows = {b"d": row(seen, Kind.DIRECTORY)}
    assert diff([(b"d", seen._replace(mtime_ns=9, ctime_ns=9, size=9))], rows).same == 1
    assert diff([(b"d", seen._replace(inode=9))], rows) == Diff([b"d"], [], [], 0, [3], {})


def test_a_directory_that_is_none_any_more_is_reported() -> None:
    """What stood below it is missing too, and the caller is told."""
    rows = {b"d": row(SEEN._replace(mode=DIRECTORY), Kind.DIRECTORY)}
    assert diff([(b"d", SEEN)], rows) == Diff([b"d"], [], [b"d"], 0, [3], {})
