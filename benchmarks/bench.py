"""Runs cases round by round, subject by subject, in fresh directories; goes on if one fails.

Trees that were written stay until everything is over: on ext4, after many files were removed,
making files is several times slower for minutes, whoever makes them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import trees
from benchmarks.case import Case, Subject, Values
from benchmarks.lan import BenchLan, Link
from benchmarks.probe import OTHERS_MARKS, CaseError
from benchmarks.results import CaseResult


class Bench:
    """What a measurement works with. quick: small sizes, to see whether everything works."""

    def __init__(self, work: Path, *, quick: bool = False) -> None:
        """work: an empty directory for everything that is written."""
        self.work = work
        self.quick = quick
        self._count = 0

    def size(self, full: int, quick: int) -> int:
        """Return the one that this run is to use."""
        return quick if self.quick else full

    def fresh(self) -> Path:
        """Return a new directory; nothing in it is removed before the end."""
        self._count += 1
        place = self.work / str(self._count)
        place.mkdir()
        return place

    @contextlib.contextmanager
    def passing(self) -> Iterator[Path]:
        """Give a new directory for a few large files, which is removed at the end."""
        place = self.fresh()
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def tree(self, name: str, make: Callable[[Path], None]) -> Path:
        """Return a tree that is made once in a run; whoever changes it works on a copy."""
        target = self.work / name
        if not target.exists():
            say(f"  making the tree {name}")
            make(target)
        for mark in OTHERS_MARKS:
            for place in (*target.glob(mark), *target.glob(f"*/{mark}")):
                shutil.rmtree(place)
        return target

    def seeded(self, tree: Path) -> tuple[Path, Path, Path]:
        """Return two equal copies of a tree, whose first sync moves nothing, and a place."""
        place = self.fresh()
        source, target = place / "source", place / "target"
        trees.copy(tree, source)
        trees.copy(tree, target)
        return source, target, place / "scratch"

    def lan(self, *hosts: str, link: Link | None = None) -> BenchLan:
        """Return a LAN, for `with`."""
        return BenchLan(*(hosts or ("a", "b")), link=link, tools=self.work)

    def run(self, case: Case, rounds: int, result: CaseResult) -> CaseResult:
        """Measure every subject in every round, adding to result; return it."""
        say(f"{case.name}: {case.about}")
        for number in range(rounds):
            for subject in case.subjects:
                if subject.rounds is None or number < subject.rounds:
                    self._measure(case, subject, result, f"{number + 1}/{rounds}")
        return result

    def _measure(self, case: Case, subject: Subject, result: CaseResult, label: str) -> None:
        os.sync()  # what was written before must not be paid for now
        try:
            free = shutil.disk_usage(self.work).free / 2**30
            if free < case.free_gib:
                raise CaseError(f"{free:.1f} GiB are free, {case.free_gib:.1f} are needed")
            values = subject.measure(self)
        except Exception as error:  # whatever it is, the others go on
            result.failed(subject.name, f"{type(error).__name__}: {error}"[:500])
            say(f"  {label} {subject.name} failed")
            traceback.print_exc(file=sys.stderr)
        else:
            result.add(subject.name, values)
            say(f"  {label} {subject.name:20} {_told(case, values)}")


def say(text: str) -> None:
    """Tell how it goes, on stderr, if anybody still listens."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _told(case: Case, values: Values) -> str:
    parts = []
    for column in case.columns:
        found = values.get(column.key)
        if found is not None:
            many = [found] if isinstance(found, int | float) else list(found)
            parts.append(f"{column.title} {column.statistic(many):.{column.digits}f}")
    return ", ".join(parts)
