"""What a case is: subjects that are measured in turn, and the columns that are told of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.stats import Statistic, median

if TYPE_CHECKING:
    from benchmarks.bench import Bench

Values = Mapping[str, float | Sequence[float]]
"""What one measurement found, by key: one value or many."""


class Subject(NamedTuple):
    """One row: who is measured, and how. It is done `rounds` times at most (None: every)."""

    name: str
    measure: Callable[[Bench], Values]
    rounds: int | None = None


class Column(NamedTuple):
    """One column of a table: a statistic over the values under a key."""

    title: str
    key: str
    statistic: Statistic = median
    digits: int = 2


class Bars(NamedTuple):
    """Draw the column of this title as bars."""

    title: str


class Lines(NamedTuple):
    """Draw columns as lines. at: where on the x axis each subject stands."""

    words: str
    at: Mapping[str, float]
    titles: Sequence[str]


@dataclass(frozen=True)
class Case:
    """One benchmark. name: what is typed to run it. about: one line that says what it shows."""

    name: str
    about: str
    subjects: Sequence[Subject]
    columns: Sequence[Column]
    ratio_to: tuple[str, ...] = ()
    """Subjects to which the first column is compared, one more column each."""
    big: bool = False
    """It takes so long that it runs only when named or with `--big`."""
    free_gib: float = 4
    """How much disk a round needs."""
    notes: Sequence[str] = field(default=())
    """What a reader must know to read the figures rightly."""
    chart: Bars | Lines | None = None
    """How it is drawn; None: it has no picture."""
