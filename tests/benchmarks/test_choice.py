"""What is asked for on the command line is what runs."""

from __future__ import annotations

from benchmarks.__main__ import chosen, narrowed
from benchmarks.cases import CASES
from tests.benchmarks.sample import CASE


def test_named_cases_run_whatever_they_cost() -> None:
    """Without names all but the big ones run; a name or `--big` brings those too."""
    big = [case for case in CASES if case.big]
    assert big
    assert chosen([], big=True) == list(CASES)
    assert chosen([], big=False) == [case for case in CASES if not case.big]
    assert chosen([big[0].name], big=False) == big[:1]


def test_subjects_can_be_chosen_by_how_their_names_begin() -> None:
    """One beginning or more; none, which is the empty one, means all."""
    (few,) = narrowed([CASE], ["p2p", "cp"])
    assert [subject.name for subject in few.subjects] == ["cp", "p2psync"]
    (all_of_it,) = narrowed([CASE], [""])
    assert list(all_of_it.subjects) == list(CASE.subjects)
