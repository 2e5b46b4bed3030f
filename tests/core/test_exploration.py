"""Scripts nobody thought of: random ones and all small ones; `scripts/explore.py` runs more."""

from __future__ import annotations

import pytest

from tests.core.replica import Rules
from tests.core.world import ALWAYS, FEATURES, Links, Op, Script, exhaust, search

RANDOM = 400  # schedules of each kind; each is some thirty operations and then rest


def _user(m: str, *kinds: str) -> list[Op]:
    acts: list[Op] = [(k, m, b"p") if k in ("w", "d") else (k, m, 0) for k in kinds]
    return [*acts, ("scan", m)]


def _pairs(names: str) -> list[Op]:
    return [("sync", a, b) for a in names for b in names if a != b]


def _edits(names: str) -> list[Op]:
    return [op for m in names for op in (("w", m, b"p"), ("scan", m))]


_BOTH_APPLY: list[Op] = [("apply", "A"), ("apply", "B")]
_CONFLICT: list[Op] = [*_edits("AB"), ("sync", "A", "B"), ("sync", "B", "A")]

# name -> (replicas, depth, alphabet, links, prefix)
PROFILES: dict[str, tuple[int, int, list[Op], Links, Script]] = {
    # everything two devices can do to one path
    "two": (
        2,
        7,
        [*_user("A", "w", "d"), *_user("B", "w", "d"), *_BOTH_APPLY, *_pairs("AB")],
        None,
        [],
    ),
    # a conflict both know and one has on disk; then users touch winner and copies
    "copies": (
        2,
        4,
        [
            *_user("A", "w", "d", "dc", "wc", "mc"),
            *_user("B", "w", "d", "dc", "wc", "mc"),
            *_BOTH_APPLY,
            *_pairs("AB"),
        ],
        None,
        [*_CONFLICT, ("apply", "A")],
    ),
    # three concurrent edits in every order of delivery, with one more edit and a delete
    "deliver": (
        3,
        3,
        [*_pairs("ABC"), ("apply", "A"), ("apply", "C"), *_user("C", "w"), *_user("A", "d")],
        None,
        _edits("ABC"),
    ),
    "deliver four": (
        4,
        2,
        _pairs("ABCD"),
        None,
        [*_edits("C"), ("sync", "C", "A"), ("apply", "A"), *_edits("A"), *_edits("B")],
    ),
    # cut sessions, third parties, a death between apply and recording
    "partial": (
        3,
        5,
        [
            ("w", "A", b"p"),
            ("w", "A", b"r"),
            ("d", "A", b"p"),
            ("scan", "A"),
            ("part", "A", "C", 1),
            ("open", "A", "B"),
            ("step", "A", "B", 1),
            ("sync", "B", "C"),
            ("sync", "C", "B"),
            ("apply", "B"),
            ("crashapply", "C", 0),
        ],
        None,
        [],
    ),
    "collect": (
        3,
        5,
        [
            ("step", "C", "B", 9),
            ("gc", "A"),
            ("gc", "B"),
            ("gc", "C"),
            ("forget", "C"),
            *_pairs("ABC"),
        ],
        None,
        [
            *_edits("A"),
            ("sync", "A", "C"),
            ("apply", "C"),
            ("open", "C", "B"),
            ("d", "A", b"p"),
            ("scan", "A"),
        ],
    ),
    # a file, a directory of that name, and what lives in it
    "container": (
        2,
        5,
        [
            ("w", "A", b"p"),
            ("w", "B", b"p/x"),
            ("turn", "A", b"p"),
            ("into", "B", b"p"),
            ("d", "B", b"p"),
            ("scan", "A"),
            ("scan", "B"),
            *_BOTH_APPLY,
            *_pairs("AB"),
        ],
        None,
        [],
    ),
    # a plan cut short anywhere while names are being swapped
    "swap": (
        2,
        6,
        [
            ("swap", "A", b"p", b"r"),
            ("mv", "A", b"p", b"d/x"),
            ("d", "A", b"r"),
            ("scan", "A"),
            ("scan", "B"),
            ("sync", "A", "B"),
            ("crashstep", "B", 1),
            ("crashstep", "B", 3),
            ("apply", "B"),
        ],
        None,
        [("w", "A", b"p"), ("w", "A", b"r"), ("scan", "A"), ("sync", "A", "B"), ("apply", "B")],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROFILES)
def test_every_small_case(name: str) -> None:
    """Every script over a small alphabet keeps all promises, each state brought to rest."""
    count, depth, alphabet, links, prefix = PROFILES[name]
    states, broken = exhaust(count, alphabet, depth, links, prefix)
    assert broken == ""
    assert states > 100


@pytest.mark.slow
@pytest.mark.parametrize("features", FEATURES)
def test_random_schedules(features: str) -> None:
    """Two to four replicas, any order, cut sessions, crashes: all promises are kept."""
    assert search(range(1, RANDOM), FEATURES[features]) is None


@pytest.mark.slow
def test_random_schedules_where_rows_are_believed() -> None:
    """A scan may rely on the rows for what it did not look at, when it looked everywhere."""
    assert search(range(9_000, 9_000 + RANDOM), FEATURES["trees"], Rules(look="rows")) is None


@pytest.mark.slow
def test_d06_random_schedules_with_plans_cut_short() -> None:
    """A plan that ends after any step leaves a folder that the next start makes whole."""
    kinds = ALWAYS | {"crashstep", "swap", "mv", "turn", "into", "mkdir", "part"}
    assert search(range(60_000, 60_000 + RANDOM), kinds) is None
