"""Statistics of samples: order statistics and bootstrap intervals, no means. Pure; dice are an argument.

A percentile is a value that was measured (nearest rank), never an interpolation between two. The interval of a difference of medians is the
percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from random import Random


@dataclass(frozen=True)
class Summary:
    n: int
    median: float
    p99: float
    worst: float


@dataclass(frozen=True)
class Difference:
    """Of medians, second minus first, with its 95% interval. `sure` where the interval does not hold zero."""

    first: float
    second: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        return self.low > 0 or self.high < 0


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank; raises ValueError of no values."""
    if not values:
        raise ValueError("a percentile of no values")
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def summary(values: Sequence[float]) -> Summary | None:
    if not values:
        return None
    return Summary(len(values), percentile(values, 0.5), percentile(values, 0.99), max(values))


def difference(first: Sequence[float], second: Sequence[float], *, dice: Random, draws: int = 2000) -> Difference:
    """Raises ValueError if one of them is empty."""
    found = sorted(_median_of_draw(second, dice) - _median_of_draw(first, dice) for _ in range(draws))
    return Difference(percentile(first, 0.5), percentile(second, 0.5), percentile(found, 0.025), percentile(found, 0.975))


def _median_of_draw(values: Sequence[float], dice: Random) -> float:
    return percentile(dice.choices(values, k=len(values)), 0.5)
