"""Limits of rate and concurrency: how many attempts of a task may begin in a period, how many may run at once. Pure; the broker counts.

    rate_limit="100/m"  ──> Rate(100, 60.0)  ──┐
    max_concurrency=3   ───────────────────────┼──> TaskLimits(bucket) ── broker.acquire(receipt, limits) ──> it runs, or waits in line
    limit_key="customer-7" ──> the bucket ─────┘

Rules
 1. The law of a rate: in any window as long as the period, wherever it is laid, at most `count` attempts begin. It is kept by the times of
    the last `count` of them: the next one may begin a period after the first of these. Buckets that fill (GCRA, token buckets) need two
    numbers for it, and let up to twice the count through in a window that straddles a pause; a fixed window does so at its edge.
 2. The law of concurrency: at no instant do more than `concurrency` attempts hold the bucket; each holds it as long as its lease.
 3. A bucket is a task, or a task and a key. Two tasks never share one.

Not promised: fairness between buckets. What was counted stays counted, also where the attempt was given back before it began.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf
from typing import Any

from stem_iso.errors import InvalidOptions
from stem_iso.task.names import joined
from stem_iso.validation import whole

MOST_STARTS = 100_000  # a rate's count: the store keeps the time of each
MOST_RUNNING = 1_000_000
LONGEST_PERIOD = 366 * 86_400.0
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
NAMES = {"sec": "s", "second": "s", "min": "m", "minute": "m", "hour": "h", "day": "d"}
WRITTEN = re.compile(r"\s*(\d{1,9})\s*(?:/|\bper\b)\s*(\d{1,9}(?:\.\d{1,6})?)?\s*([a-z]+)\s*", re.IGNORECASE)
EXAMPLES = "give a count per period, such as '10/s', '100/m', '5/h' or '500/10s'"


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` in any `period` (seconds)."""

    count: int
    period: float

    @classmethod
    def read(cls, written: str) -> Rate:
        """Of "10/s", "100 / min", "500/10s", "3 per hour". Raises ValueError with the end of a message."""
        match = WRITTEN.fullmatch(written)
        if match is None:
            raise ValueError(f"is no rate; {EXAMPLES}")
        unit = match[3].lower()
        unit = NAMES.get(unit.removesuffix("s") if len(unit) > 2 else unit, unit)
        if unit not in SECONDS:
            raise ValueError(f"has an unknown unit {match[3]!r} (known are {', '.join(SECONDS)}); {EXAMPLES}")
        count, period = int(match[1]), float(match[2] or 1) * SECONDS[unit]
        if not 1 <= count <= MOST_STARTS:
            raise ValueError(f"must have a count from 1 to {MOST_STARTS:,}; shorten or lengthen the period with it, as in '1/10s'")
        if not 0.001 <= period <= LONGEST_PERIOD:
            raise ValueError("must have a period from 1 ms to 366 days")
        return cls(count, period)


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """`bucket` is what is counted together; at least one of `rate` and `concurrency` is set."""

    bucket: str
    rate: Rate | None = None
    concurrency: int | None = None


def rate(name: str, value: Any) -> str | None:
    """The rate as it was written, trimmed: it travels as text. Raises InvalidOptions."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidOptions(f"{name}: {value!r} is no rate; {EXAMPLES}")
    try:
        Rate.read(value)
    except ValueError as error:
        raise InvalidOptions(f"{name}: {value!r} {error}") from None
    return value.strip()


def concurrency(name: str, value: Any) -> int | None:
    """Raises InvalidOptions."""
    return None if value is None else whole(name, value, 1, MOST_RUNNING, ", 1 or more; leave it out for no limit")


def key_conflict(key: str | None, rate: str | None, concurrency: int | None) -> str | None:
    """Why a key is said in vain, None where it is not."""
    if key is None or rate is not None or concurrency is not None:
        return None
    return f"limit_key ({key!r}) means nothing without a rate_limit or a max_concurrency"


def limits_of(name: str, key: str | None, rate: str | None, concurrency: int | None) -> TaskLimits | None:
    """The limits of one attempt; None where there are none. `rate` was checked before."""
    if rate is None and concurrency is None:
        return None
    bucket = joined(name) if key is None else joined(name, key)
    return TaskLimits(bucket, None if rate is None else Rate.read(rate), concurrency)


def wait(limits: TaskLimits, *, now: float, running: int, ahead: int, began: float | None) -> float:
    """Seconds until one more may begin, behind `ahead` others that wait for the same and have not begun: 0 now, inf once another has ended.

    `running` hold the bucket. `began` is when that attempt began that must be a period old by then: of the last `count` the one at place
    `ahead`, the eldest first; None where fewer have begun. It and `now` are of one clock, which nobody sets back.
    """
    if limits.concurrency is not None and running + ahead >= limits.concurrency:
        return inf
    if limits.rate is None:
        return 0.0
    if ahead >= limits.rate.count:
        return inf
    return 0.0 if began is None else max(0.0, began + limits.rate.period - now)
