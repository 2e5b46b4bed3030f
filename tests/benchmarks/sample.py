"""A case and a result with figures one can add up in the head."""

from __future__ import annotations

from benchmarks.case import Bars, Case, Column, Subject, Values
from benchmarks.results import CaseResult, Machine
from benchmarks.stats import p99

MACHINE = Machine(2, "a processor", 8.0, "6.1", "3.11", "cubic", {"rsync": "3.2"})


def nothing(_: object) -> Values:
    return {}


CASE = Case(
    "copies",
    "how long copies take & why",
    [Subject(name, nothing) for name in ("cp", "rsync", "p2psync", "never ran")],
    [Column("s", "s"), Column("p99 ms", "ms", p99, 1)],
    ratio_to=("rsync",),
    notes=("One note.", "Another."),
    chart=Bars("s"),
)


def result() -> CaseResult:
    made = CaseResult("abc1234", "2026-01-02", MACHINE, 3)
    for seconds in (9.0, 1.0, 2.0):
        made.add("rsync", {"s": seconds})
        made.add("p2psync", {"s": seconds / 2, "ms": [seconds, 10 * seconds]})
    made.add("cp", {"s": 1_500})
    made.failed("rsync", "CaseError: no route\nand more")
    return made
