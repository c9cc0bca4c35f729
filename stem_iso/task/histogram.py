"""Histogram of durations whose quantiles are right to 5 %, and which can be added up.

    seconds ── bin_of ──> bin          {bin: count} + {bin: count}          quantile(bins, 0.95) ──> seconds

Bins grow by a tenth each: bin n holds what is in (GROWTH ** (n - 1), GROWTH ** n]. All in a bin count as one value, which is wrong by the
same share at both of its ends, (GROWTH - 1) / (GROWTH + 1) = 4.8 % (DDSketch: Masson, Rim, Lee, VLDB 2019, section 2.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log

GROWTH = 1.1
SHORTEST, LONGEST = 1e-6, 1e9  # seconds: what is shorter or longer counts as these, so there are at most 364 bins

_PER_BIN = log(GROWTH)


def bin_of(seconds: float) -> int:
    """What is no number counts as the shortest."""
    if SHORTEST < seconds < LONGEST:  # workers ask twice for each task: `min` and `max` would double the price
        return ceil(log(seconds) / _PER_BIN)
    return ceil(log(LONGEST if seconds >= LONGEST else SHORTEST) / _PER_BIN)


def value_of(bin: int) -> float:
    """Seconds that stand for all in this bin."""
    return float(2 * GROWTH**bin / (GROWTH + 1))


def upper_end(bin: int) -> float:
    """The longest duration, seconds, that counts in this bin."""
    return float(GROWTH**bin)


def add(bins: dict[int, int], more: Mapping[int, int]) -> None:
    """Add `more` to `bins`, in place."""
    for bin, count in more.items():
        bins[bin] = bins.get(bin, 0) + count


def quantile(bins: Mapping[int, int], share: float) -> float | None:
    """The duration, seconds, that this share (0 to 1) of all did not exceed; None where there are none."""
    total = sum(bins.values())
    if not total:
        return None
    rank, passed = max(1, ceil(share * total)), 0
    for bin in sorted(bins):
        passed += bins[bin]
        if passed >= rank:
            return value_of(bin)
    raise AssertionError("the rank is at most the total")
