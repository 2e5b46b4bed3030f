"""Writes results into the page: a section a case, with its picture. Pure but for `draw`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import chart
from benchmarks.case import Case
from benchmarks.results import CaseResult, Results
from benchmarks.tables import markdown, table

BEGIN: Final = "<!-- figures: written by scripts/bench, do not edit below -->"
END: Final = "<!-- figures: end -->"


def section(case: Case, result: CaseResult, picture: str | None) -> str:
    """Return what the page says of one case."""
    parts = [f"### {case.name}", case.about[0].upper() + case.about[1:] + "."]
    if picture:
        parts.append(f"![{case.about}]({picture})")
    parts.append(markdown(table(case, result)))
    parts += [f"- {note}" for note in case.notes]
    for subject, reasons in result.failures.items():
        first = reasons[0].splitlines()[0]
        parts.append(f"- {subject} failed {len(reasons)} of {result.rounds} times: {first}")
    machine = result.machine
    parts.append(
        f"*{result.rounds} round{'s' * (result.rounds > 1)}, commit {result.commit}, "
        f"{result.date}; {machine.cores} cores ({machine.processor}), "
        f"{machine.memory_gib:.0f} GiB, Linux {machine.kernel}, TCP {machine.tcp}"
        f"{'; small sizes only' if result.quick else ''}*"
    )
    return _joined(parts)


def _joined(parts: Sequence[str]) -> str:
    """Join paragraphs; the points of one list stay together."""
    text = parts[0]
    for before, part in itertools.pairwise(parts):
        together = before.startswith("- ") and part.startswith("- ")
        text += ("\n" if together else "\n\n") + part
    return text


def spliced(page: str, figures: str) -> str:
    """Return the page with these figures between the markers.

    Raises:
        ValueError: it has no markers.
    """
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError("the page has no place for figures")
    return f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}"


def draw(cases: Sequence[Case], results: Results, page: Path) -> None:
    """Write figures and pictures of all cases that have results into the page."""
    sections = []
    for case in cases:
        result = results.cases.get(case.name)
        if result is None or not result.values:
            continue
        picture = None
        if case.chart is not None:
            picture = f"pictures/performance-{case.name}.svg"
            (page.parent / picture).write_text(chart.of(case, result))
        sections.append(section(case, result, picture))
    page.write_text(spliced(page.read_text(), "\n\n".join(sections)))
