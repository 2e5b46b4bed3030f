"""What is said of many single values: medians, percentiles, ratios. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

Statistic = Callable[[Sequence[float]], float]


def median(values: Sequence[float]) -> float:
    """Return the middle value; of an even number, the mean of the two in the middle."""
    return statistics.median(values)


def percentile(share: float) -> Statistic:
    """Return the function that finds the smallest value that `share` of the values reach.

    share: above 0 and up to 1. The nearest rank, so always a value that was measured.
    """

    def of(values: Sequence[float]) -> float:
        ordered = sorted(values)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    return of


p50 = percentile(0.5)
p99 = percentile(0.99)
worst = percentile(1.0)


def ratio(value: float | None, reference: float | None) -> float | None:
    """Return how many times the reference a value is; None where one of them is missing."""
    return value / reference if value is not None and reference else None
