"""The trees that are measured are the same every time."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import trees
from benchmarks.probe import CaseError, verify_same


@pytest.mark.slow
def test_made_trees_are_the_same_every_time(tmp_path: Path) -> None:
    """Two trees made alike are equal, down to the last byte."""
    for name in ("one", "other"):
        trees.tiny_files(tmp_path / name, 50)
        trees.big_file(tmp_path / name / "large", 2 * trees.MIB + 5)
        trees.made_like_a_system(tmp_path / name / "mix", 300)
    verify_same(tmp_path / "one", tmp_path / "other")


def test_counts_and_sizes(tmp_path: Path) -> None:
    """As many files as asked for, of the size asked for, all different."""
    trees.tiny_files(tmp_path / "t", 1_010, size_bytes=20)
    trees.big_file(tmp_path / "t" / "large", 100)
    assert trees.files_in(tmp_path / "t") == 1_011
    assert trees.bytes_in(tmp_path / "t") == 1_010 * 20 + 100
    contents = {path.read_bytes() for path in trees.regular_files(tmp_path / "t")}
    assert len(contents) == 1_011


def test_a_difference_is_found_and_marks_are_not_one(tmp_path: Path) -> None:
    """One byte is enough; what sync programs put in for themselves does not count."""
    for name in ("one", "other"):
        trees.tiny_files(tmp_path / name, 3)
    (tmp_path / "one" / ".p2psync").mkdir()
    (tmp_path / "other" / ".stfolder").mkdir()
    verify_same(tmp_path / "one", tmp_path / "other")
    (tmp_path / "one" / "0000" / "001").write_bytes(b"%015d\n" % 9)
    with pytest.raises(CaseError, match="differ"):
        verify_same(tmp_path / "one", tmp_path / "other")
