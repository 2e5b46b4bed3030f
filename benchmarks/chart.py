"""Draws a case as a small SVG: bars, one a subject; or lines over a growing number. Pure."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Final

from benchmarks.case import Bars, Case, Lines
from benchmarks.results import CaseResult
from benchmarks.tables import figure

WIDTH: Final = 820
LABELS: Final = 230  # where bars begin
BAR: Final = 22
STEP: Final = 32
TOP: Final = 64
PLOT: Final = (70, 64, 560, 260)  # of lines: left, top, width, height
LEAST_GAP: Final = 17  # between two lines of text
COLOURS: Final = ("#0969da", "#bf3989", "#1a7f37", "#9a6700", "#8250df")
STYLE: Final = """\
    text { font: 14px system-ui, sans-serif; fill: #1f2328 }
    .title { font-size: 16px; font-weight: 600 }
    .faint { fill: #59636e; font-size: 12px }
    .bg { fill: #ffffff; stroke: #d0d7de }
    .grid { stroke: #d0d7de; stroke-width: 1 }
    .ours { fill: #0969da }
    .other { fill: #afb8c1 }
    polyline { fill: none; stroke-width: 2.5 }"""


def of(case: Case, result: CaseResult) -> str:
    """Return the case's picture."""
    match case.chart:
        case Lines() as lines:
            return _lines(case, result, lines)
        case Bars(title):
            return _bars(case, result, title)
        case None:
            raise ValueError(f"{case.name} has no picture")


def _bars(case: Case, result: CaseResult, title: str) -> str:
    shown = [
        (subject.name, value)
        for subject in case.subjects
        if (value := figure(case, result, subject.name, title)) is not None
    ]
    longest = max((value for _, value in shown), default=0) or 1
    parts = []
    for number, (name, value) in enumerate(shown):
        y = TOP + number * STEP
        width = max(2.0, (WIDTH - LABELS - 110) * value / longest)
        kind = "ours" if name.startswith("p2psync") else "other"
        parts += [
            _text(LABELS - 12, y + 16, name, anchor="end"),
            f'<rect x="{LABELS}" y="{y}" width="{width:.1f}" height="{BAR}" class="{kind}"/>',
            _text(LABELS + width + 8, y + 16, short(value)),
        ]
    return _picture(case.about, title, parts, TOP + len(shown) * STEP + 16)


def _lines(case: Case, result: CaseResult, lines: Lines) -> str:
    """Draw each column as a line; both scales are logarithmic, so in step means straight."""
    left, top, width, height = PLOT
    curves = []
    for title in lines.titles:
        points = [
            (at, value)
            for name, at in lines.at.items()
            if (value := figure(case, result, name, title))
        ]
        curves.append((title, points))
    every = [point for _, points in curves for point in points] or [(1.0, 1.0)]
    x_scale = Scale([x for x, _ in every], left, left + width)
    y_scale = Scale([y for _, y in every], top + height, top)
    parts = []
    for tick in x_scale.ticks():
        parts.append(_rule(x_scale(tick), top, x_scale(tick), top + height))
        parts.append(_text(x_scale(tick), top + height + 20, short(tick), "middle", "faint"))
    for tick in y_scale.ticks():
        parts.append(_rule(left, y_scale(tick), left + width, y_scale(tick)))
        parts.append(_text(left - 8, y_scale(tick) + 4, short(tick), "end", "faint"))
    ends = []
    for (title, points), colour in zip(curves, COLOURS, strict=False):
        places = [(x_scale(x), y_scale(y)) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" stroke="{colour}"/>')
        for x, y in places:
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
        ends += [(y, x, title) for x, y in places[-1:]]
    lowest = 0.0
    for y, x, title in sorted(ends):  # names of lines that end close together stay apart
        lowest = max(y + 5, lowest + LEAST_GAP)
        parts.append(_text(x + 10, lowest, title))
    return _picture(case.about, lines.words, parts, top + height + 40)


class Scale:
    """Logarithmic, from whole powers of ten to whole powers of ten."""

    def __init__(self, values: Sequence[float], begin: float, end: float) -> None:
        self.low = math.floor(math.log10(min(values)))
        self.high = max(self.low + 1, math.ceil(math.log10(max(values))))
        self._begin, self._end = begin, end

    def __call__(self, value: float) -> float:
        """Return where a value lies."""
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self._begin + share * (self._end - self._begin)

    def ticks(self) -> list[float]:
        """Return the powers of ten, from end to end."""
        return [10.0**power for power in range(self.low, self.high + 1)]


def short(value: float) -> str:
    """Return a number with about three digits, thousands and millions by letters."""
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _text(x: float, y: float, words: str, anchor: str = "start", kind: str = "label") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}"'
    return f"<text {place}>{html.escape(words)}</text>"


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="grid"/>'


def _picture(title: str, unit: str, parts: Sequence[str], height: int) -> str:
    body = "\n  ".join(parts)
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" \
height="{height}" role="img" aria-labelledby="title">
  <title id="title">{html.escape(title)}: {html.escape(unit)}</title>
  <style>
{STYLE}
  </style>
  <rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" class="bg"/>
  {_text(20, 28, title, kind="title")}
  {_text(20, 48, unit, kind="faint")}
  {body}
</svg>
"""
