"""Makes tables of results, as text cells; for the terminal and for the page. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.case import Case
from benchmarks.results import CaseResult
from benchmarks.stats import ratio

MISSING: Final = "-"


def table(case: Case, result: CaseResult) -> list[list[str]]:
    """Return a case's table as text cells, the titles first; every number a statistic."""
    titles = ["", *(column.title for column in case.columns)]
    titles += [f"x {name}" for name in case.ratio_to]
    lines = [titles]
    for subject in case.subjects:
        if subject.name not in result.values:
            continue
        cells = [subject.name]
        for column in case.columns:
            value = figure(case, result, subject.name, column.title)
            cells.append(MISSING if value is None else f"{value:,.{column.digits}f}")
        own, first = figure(case, result, subject.name), case.columns[0].title
        for name in case.ratio_to:
            times = ratio(own, figure(case, result, name, first))
            cells.append(MISSING if times is None else f"{times:.2f}")
        lines.append(cells)
    return lines


def figure(
    case: Case, result: CaseResult, subject: str, title: str | None = None
) -> float | None:
    """Return the figure of a subject under a column's title (None: the first column)."""
    column = next(c for c in case.columns if title in (None, c.title))
    values = result.values.get(subject, {}).get(column.key)
    return column.statistic(values) if values else None


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return a table for the terminal."""
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    text = []
    for first, *rest in lines:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        text.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(text)


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return a table for the page."""
    titles, *rest = lines
    rule = ["---", *("---:" for _ in titles[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, rule, *rest))
