"""What is said of many values is what it says."""

from __future__ import annotations

import pytest

from benchmarks.cases.economy import counted
from benchmarks.cases.renames import renames
from benchmarks.stats import median, p50, p99, percentile, ratio, worst


def test_percentiles_are_measured_values() -> None:
    """The nearest rank: of 1 to 100 the p99 is 99; of few values it is the greatest."""
    hundred = [float(n) for n in range(100, 0, -1)]
    assert (p50(hundred), p99(hundred), worst(hundred)) == (50, 99, 100)
    assert p99([3.0, 1.0, 2.0]) == 3
    assert percentile(0.01)([5.0]) == 5


def test_the_median_is_in_the_middle() -> None:
    """Of an even number it lies between the two in the middle."""
    assert median([9.0, 1.0, 2.0]) == 2
    assert median([4.0, 1.0]) == 2.5


def test_a_ratio_needs_both() -> None:
    """What is missing, or zero, is nothing to compare with."""
    assert ratio(3.0, 2.0) == 1.5
    assert [ratio(None, 1.0), ratio(1.0, None), ratio(1.0, 0.0)] == [None, None, None]


def test_a_directory_that_moved_as_a_whole_is_one_rename() -> None:
    """Files that went along are not counted; what did not move neither."""
    old = {"d": 1, "d/a": 2, "d/s": 3, "d/s/b": 4, "stays": 5}
    new = {"e": 1, "e/a": 2, "e/s": 3, "e/s/b": 4, "stays": 5}
    assert renames(old, new) == 1
    assert renames(old, old) == 0


@pytest.mark.parametrize(
    ("new", "count"),
    [
        ({"e": 9, "e/a": 2, "e/b": 3}, 2),  # moved one by one into a new directory
        ({"d": 1, "d/A": 2, "d/b": 3}, 1),  # a new name in the same directory
        ({"e": 1, "e/A": 2, "e/b": 3}, 2),  # the directory, and one in it
        ({"e": 9, "e/a": 8, "e/b": 7}, 0),  # all made anew
        ({"d": 1, "a": 2, "b": 3}, 2),  # out to the top
    ],
)
def test_what_moves_by_itself_is_counted(new: dict[str, int], count: int) -> None:
    """Each object whose name or directory became another one is a rename of its own."""
    assert renames({"d": 1, "d/a": 2, "d/b": 3}, new) == count


def test_calls_are_read_from_the_report() -> None:
    """Of strace's report the wanted calls count, with errors or without; the total does not."""
    report = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 80.00    0.000400          20        12           fsync
 15.00    0.000100          10         3         1 syncfs
  5.00    0.000010          10         7           openat
------ ----------- ----------- --------- --------- ----------------
100.00    0.000510          23        22         1 total
"""
    assert counted(report) == 15
    assert counted("") == 0
