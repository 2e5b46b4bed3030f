"""Tests of `core.safety`: the brakes."""

from __future__ import annotations

import pytest

from p2psync.core.safety import emptied_root, mass_deletion


@pytest.mark.parametrize(
    ("rows", "found", "held"), [(2, 0, True), (1, 0, False), (0, 0, False), (9, 1, False)]
)
def test_emptied_root(rows: int, found: int, held: bool) -> None:
    """A root that held things and holds nothing is more often a mount gone than a wish."""
    assert emptied_root(rows, found) is held


@pytest.mark.parametrize(
    ("files", "vanished", "renamed", "held"),
    [
        pytest.param(60, 20, 0, True, id="a third of sixty"),
        pytest.param(60, 19, 0, False, id="fewer than twenty"),
        pytest.param(100, 30, 0, False, id="not more than thirty percent"),
        pytest.param(100, 31, 0, True, id="more than thirty percent"),
        pytest.param(100, 90, 75, False, id="e14 renames are no deletions"),
        pytest.param(20, 20, 0, True, id="all"),
    ],
)
def test_e14_mass_deletion(files: int, vanished: int, renamed: int, held: bool) -> None:
    """Many files gone at once hold the folder; many renamed do not."""
    assert mass_deletion(files, vanished, renamed) is held
