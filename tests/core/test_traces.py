"""Every trace that once broke a draft of the data model, and what each rule is there for.

F traces broke the model with one value per path; G traces break the present one when a rule is
taken away. Where the rule can be taken away here, the test also shows that the trace bites.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from p2psync.core import draft, local
from p2psync.core.entry import Entry
from p2psync.core.index import Row
from p2psync.core.reconcile import reconcile
from p2psync.core.vector import Vector
from tests.core.replica import Rules, file
from tests.core.world import Op, chain, fails, run


def scan(m: str) -> Op:
    return ("scan", m)


def edit(m: str, path: bytes = b"p") -> tuple[Op, Op]:
    return ("w", m, path), ("scan", m)


def delete(m: str, path: bytes = b"p") -> tuple[Op, Op]:
    return ("d", m, path), ("scan", m)


def sync(a: str, b: str) -> Op:
    return ("sync", a, b)


def apply(m: str) -> Op:
    return ("apply", m)


AB, BA, AC, CA = sync("A", "B"), sync("B", "A"), sync("A", "C"), sync("C", "A")
AD, BD, CD, BC, CB = (
    sync("A", "D"),
    sync("B", "D"),
    sync("C", "D"),
    sync("B", "C"),
    sync("C", "B"),
)

F8 = (
    *edit("A"), AC, ("open", "C", "B"), *delete("A"), AC, AB, CA, AB, BA,
    ("gc", "A"), ("gc", "B"), AC, ("gc", "C"), ("step", "C", "B", 9),
)  # fmt: skip
F9 = (
    *edit("A"), AB, AC, apply("B"), apply("C"), ("forget", "C"), *delete("A"), AB, BA,
    apply("B"), AB, ("gc", "A"), ("gc", "B"),
)  # fmt: skip
ROLLED_BACK = (*edit("A"), AB, apply("B"), ("snap", "A"))
G2 = (*edit("B"), *edit("A"), AB, ("down", "B", 0), ("w", "B", b"p"))

TRACES: dict[str, tuple[int, tuple[Op, ...]]] = {
    "f1_earlier_change_claimed_but_never_sent": (
        3,
        (*edit("A"), AB, apply("B"), *edit("A", b"r"), *edit("A"), ("part", "A", "C", 1),
         ("die", "A")),
    ),
    "f2_edits_met_in_different_orders": (
        4,
        (*edit("C"), CA, apply("A"), *edit("A"), *edit("B"), CD, BD, AD, BA),
    ),
    "f3_edits_and_deletes_met_in_different_orders": (
        4,
        (*edit("C"), CA, apply("A"), *delete("A"), *edit("B"), CD, BD, AD, BA),
    ),
    "f3b_a_delete_that_had_seen_the_edit_wins": (
        2,
        (*edit("B"), BA, *edit("A"), *delete("B"), BA),
    ),
    "f4_copies_reach_who_never_saw_the_conflict": (
        4,
        (*edit("A"), *edit("B"), AC, apply("C"), *edit("C"), AD, BD, apply("D"), BC),
    ),
    "f5_copy_deleted_before_the_other_copy_arrives": (
        2,
        (*edit("A"), *edit("B"), ("open", "B", "A"), AB, ("step", "B", "A", 9),
         ("apply", "A", "B"), ("apply", "B", "A"), ("dc", "A", 0), scan("A")),
    ),
    "f6_loser_edited_on_by_who_holds_it": (2, (*edit("A"), *edit("B"), AB, *edit("A"))),
    "f7_rollback_unseen_by_peers": (
        2,
        (*ROLLED_BACK, *edit("A", b"r"), AB, apply("B"), ("roll", "A", 1), *edit("A"),
         *edit("A", b"s"), BA, AB),
    ),
    "f7b_rollback_and_an_edit_that_had_not_seen_ours": (
        2,
        (*ROLLED_BACK, *edit("A"), AB, apply("B"), ("roll", "A", 1), *edit("A"), *edit("B"), BA,
         apply("A")),
    ),
    "f8_tombstone_collected_while_an_old_entry_is_under_way": (3, F8),
    "f8b_collected_here_and_sent_again": (
        2,
        (*edit("B"), ("part", "B", "A", 2), *delete("B"), ("forget", "A"), ("gc", "B"),
         ("w", "A", b"p")),
    ),
    "f9_a_forgotten_member_comes_back": (3, F9),
    "f10_chmod_here_edit_there": (
        2,
        (*edit("A"), AB, apply("B"), ("m", "A", b"p", 1), scan("A"), *edit("B")),
    ),
    "f11_ordinary_file_on_the_name_of_a_copy": (
        2,
        (*edit("A"), ("mk", "B", 0), scan("B"), *edit("B"), AB, BA),
    ),
    "g1_only_copy_deleted_while_on_its_way_home": (
        3,
        (*edit("C"), *edit("B"), BC, apply("C"), *delete("B"), BC, ("dc", "C", 0)),
    ),
    "g2_died_in_an_apply_then_an_edit": (2, G2),
    "g3_died_in_an_apply_then_entries_before_a_scan": (
        2,
        (*edit("A"), AB, ("crashapply", "B", 0), *delete("A"), AB),
    ),
    "g4_loser_replaced_before_its_copy_stands": (3, (*edit("A"), *edit("C"), CA, apply("A"))),
    "g6_batch_read_in_pages_and_its_author_dies": (
        3,
        (*edit("A"), AC, apply("C"), ("open", "A", "B"), *edit("A"), ("step", "A", "B", 9),
         ("die", "A")),
    ),
    "g11_collected_while_a_batch_is_under_way": (
        2,
        (*edit("A", b"r"), AB, apply("B"), ("open", "A", "B"), ("forget", "B"),
         *delete("A", b"r"), ("gc", "A")),
    ),
    "g12_copy_deleted_while_the_loser_still_stands": (
        4,
        (("w", "B", b"d/z"), ("mkdir", "D", b"d/z"), scan("D"), sync("D", "B"), scan("B"),
         ("crashstep", "B", 2), ("dc", "B", 0)),
    ),
    "g13_copy_deleted_then_the_loser_replaced_unscanned": (
        4,
        (("w", "B", b"d/z"), ("mkdir", "D", b"d/z"), scan("D"), sync("D", "B"), scan("B"),
         ("crashstep", "B", 2), ("dc", "B", 0), apply("B")),
    ),
    "g14_file_replaced_by_a_directory_on_both_sides": (
        4,
        (*edit("D", b"d"), *edit("B", b"d/y"), BD, ("turn", "D", b"d")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRACES)
def test_trace(name: str) -> None:
    """What broke an earlier draft comes to rest with everything kept and everybody equal."""
    count, script = TRACES[name]
    assert fails(script, count) == ""


def test_trace_over_a_chain() -> None:
    """A change passes through a replica that does not hold the content."""
    script = (*edit("A"), AB, BC, *edit("C"), *edit("A"), CB)
    assert fails(script, 3, links=chain("ABC")) == ""


class Without(NamedTuple):
    """A rule taken away, and how its trace then ends."""

    trace: str
    rules: Rules = Rules()
    patch: tuple[Any, str, Callable[..., Any]] | None = None
    ending: str = ""


_elsewhere = local._Scan._elsewhere


def _adopts_blindly(self: Any, path: bytes, row: Row | None) -> Any:
    return _elsewhere(self, path, row)[0], False


def _supersedes_what_stands_elsewhere(self: Any, path: bytes, row: Row | None) -> Any:
    return frozenset(), _elsewhere(self, path, row)[1]


def _forgets_the_dead(mine: Entry, incoming: Entry, known: Vector) -> Entry:
    return reconcile(mine, incoming, {})


REMOVED = [
    Without(
        "f1_earlier_change_claimed_but_never_sent",
        Rules(knowledge="entry"),
        None,
        "false claim",
    ),
    Without("f7_rollback_unseen_by_peers", Rules(start_author=False), None, "dot used twice"),
    Without(
        "f7b_rollback_and_an_edit_that_had_not_seen_ours",
        Rules(start_author=False),
        None,
        "dot used twice",
    ),
    Without("f9_a_forgotten_member_comes_back", Rules(full_listing=False), None, "diverged"),
    Without(
        "f8b_collected_here_and_sent_again",
        patch=(draft, "reconcile", _forgets_the_dead),
        ending="cannot finish",
    ),
    Without(
        "f10_chmod_here_edit_there",
        patch=(local, "same_object", lambda a, b: False),
        ending="not exact",
    ),
    Without(
        "g1_only_copy_deleted_while_on_its_way_home",
        patch=(local._Scan, "_elsewhere", _adopts_blindly),
        ending="cannot finish",
    ),
    Without(
        "g14_file_replaced_by_a_directory_on_both_sides",
        patch=(local._Scan, "_elsewhere", _adopts_blindly),
        ending="cannot finish",
    ),
    Without(
        "g2_died_in_an_apply_then_an_edit",
        patch=(local._Scan, "_elsewhere", _supersedes_what_stands_elsewhere),
        ending="lost",
    ),
    Without(
        "g3_died_in_an_apply_then_entries_before_a_scan",
        Rules(scan_first="no"),
        None,
        "not exact",
    ),
    Without(
        "g6_batch_read_in_pages_and_its_author_dies",
        Rules(paging="old-end"),
        None,
        "false claim",
    ),
    Without("g11_collected_while_a_batch_is_under_way", Rules(recheck=False), None, "diverged"),
    Without(
        "g12_copy_deleted_while_the_loser_still_stands",
        patch=(local._Scan, "_is_loser", lambda self, path, row: False),
        ending="lost",
    ),
]


@pytest.mark.parametrize("without", REMOVED, ids=lambda without: without.trace)
def test_trace_bites_without_its_rule(
    without: Without, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule is needed: without it the same trace breaks a promise."""
    if without.patch is not None:
        monkeypatch.setattr(*without.patch)
    count, script = TRACES[without.trace]
    assert fails(script, count, without.rules).startswith(without.ending)


def test_g9_the_edit_of_the_winner_stays_the_winner() -> None:
    """A content that ranks low by itself wins where its author edited the winner."""
    world = run((*edit("A"), *edit("B"), AB, apply("B"), ("c", "B", b"p", 1), scan("B")), 2)
    assert world.replicas["A"].disk[b"p"] == file(1)
    assert len(world.replicas["A"].disk) == 2


def test_g5_nothing_jumps_into_a_name_just_freed() -> None:
    """Deleting the winner leaves its conflict copies where they stand, as ordinary files."""
    world = run((*edit("A"), *edit("C"), CA, apply("A"), *delete("A")), 3)
    disk = world.replicas["C"].disk
    assert b"p" not in disk
    assert [path.startswith(b"p.conflict-") for path in disk] == [True]


def test_c05_b06_a_directory_deleted_while_a_file_is_made_in_it_stays() -> None:
    """The file made at the same time survives, and its directory with it, on both sides."""
    script = (
        ("mkdir", "A", b"d"),
        scan("A"),
        AB,
        apply("B"),
        *delete("A", b"d"),
        *edit("B", b"d/x"),
    )
    world = run(script, 2)
    assert world.replicas["A"].disk.keys() == {b"d", b"d/x"}


def test_c10_an_implicit_directory_ends_with_the_last_thing_in_it() -> None:
    """It was deleted before; when what kept it goes, it goes, on both sides."""
    script = (
        *(("mkdir", "A", b"d"), scan("A"), AB, apply("B"), *delete("A", b"d")),
        *(*edit("B", b"d/x"), AB, BA, apply("A"), *delete("A", b"d/x")),
    )
    world = run(script, 2)
    assert world.replicas["A"].disk == world.replicas["B"].disk == {}


def test_c11_a_directory_made_on_both_sides_is_one() -> None:
    """Both sides' children are in it, and there is no conflict."""
    world = run((*edit("A", b"d/x"), *edit("B", b"d/y"), AB, BA), 2)
    assert world.replicas["A"].disk.keys() == {b"d", b"d/x", b"d/y"}


def test_d02_a_file_never_hides_a_subtree() -> None:
    """One side makes the directory a file while the other adds to it: both are kept."""
    script = (
        *edit("A", b"d/x"),
        AB,
        apply("B"),
        ("turn", "A", b"d"),
        scan("A"),
        *edit("B", b"d/y"),
    )
    disk = run(script, 2).replicas["A"].disk
    assert {b"d", b"d/y"} < disk.keys()
    assert sum(path.startswith(b"d.conflict-") for path in disk) == 1
