"""Counts and times of tasks, minute by minute.

broker.counts ──> stats_of(counts, name, first, last) ──> TaskStats: a bucket for each minute, quantiles over all of them

A minute in which nothing happened is a bucket of zeros. Workers hand over their counts once a second, so the newest bucket still grows.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from stem_iso.brokers.operations import COUNTED
from stem_iso.task.histogram import add, quantile
from stem_iso.validation import text, whole

if TYPE_CHECKING:
    from stem_iso.brokers.operations import TaskCounts
    from stem_iso.client.application import Application

MOST_MINUTES = 1440  # what brokers keep


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that so much of all did not exceed, right to 5 %; None where there were none."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class StatsBucket(msgspec.Struct, frozen=True, kw_only=True):
    """What happened in the minute that began `at`. The time-outs, `crashed` and `out_of_memory` are ways in which an attempt ends,
    whatever becomes of the task: a task whose attempt crashed for good is `failed` too."""

    at: datetime
    enqueued: int = 0
    started: int = 0
    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    timed_out_soft: int = 0
    timed_out_hard: int = 0
    timed_out_silence: int = 0
    crashed: int = 0
    out_of_memory: int = 0
    revoked: int = 0


class TaskStats(msgspec.Struct, frozen=True, kw_only=True):
    """`buckets`: one for each of the last `minutes`, oldest first, this minute last. `wait`: from when a task was ready until it began;
    `run`: of an attempt; both over all of these minutes. `name` "": all tasks."""

    name: str
    minutes: int
    buckets: list[StatsBucket]
    wait: Quantiles
    run: Quantiles

    def total(self, word: str) -> int:
        """Over all buckets: `stats.total("failed")`."""
        return sum(int(getattr(bucket, word)) for bucket in self.buckets)


def task_stats(app: Application, name: str | None, minutes: int, queue: str | None) -> TaskStats:
    """Raises InvalidOptions."""
    counts, first, last = _counts(app, name, minutes, queue)
    return stats_of(counts, name or "", first, last)


def stats_by_name(app: Application, minutes: int) -> list[TaskStats]:
    """Of each task of which anything happened, by name."""
    counts, first, last = _counts(app, None, minutes, None)
    names = sorted({each.name for each in counts})
    return [stats_of([each for each in counts if each.name == name], name, first, last) for name in names]


def _counts(app: Application, name: str | None, minutes: int, queue: str | None) -> tuple[list[TaskCounts], int, int]:
    whole("minutes", minutes, 1, MOST_MINUTES, f" from 1 to {MOST_MINUTES}: counts are kept for a day")
    name, queue = None if name is None else text("name", name), None if queue is None else text("queue", queue)
    last = int(app.clock() // 60)
    first = last - minutes + 1
    with app.broker_pool.borrow() as broker:
        return broker.counts(first, last, queue, name), first, last


def stats_of(counts: Iterable[TaskCounts], name: str, first: int, last: int) -> TaskStats:
    """Of these minutes, both included (wall clock // 60); `counts` are all of one task, or whatever else is to be added up."""
    by_minute: dict[int, dict[str, int]] = {minute: {} for minute in range(first, last + 1)}
    wait: dict[int, int] = {}
    run: dict[int, int] = {}
    for each in counts:
        if (bucket := by_minute.get(each.minute)) is None:
            continue
        for word, count in each.counts.items():
            if word in COUNTED:  # a newer worker may count more
                bucket[word] = bucket.get(word, 0) + count
        add(wait, each.wait)
        add(run, each.run)
    buckets = [StatsBucket(at=datetime.fromtimestamp(minute * 60, UTC), **found) for minute, found in by_minute.items()]
    return TaskStats(name=name, minutes=last - first + 1, buckets=buckets, wait=quantiles(wait), run=quantiles(run))


def quantiles(bins: dict[int, int]) -> Quantiles:
    """Of a histogram, see `task.histogram`."""
    return Quantiles(p50=quantile(bins, 0.5), p95=quantile(bins, 0.95), p99=quantile(bins, 0.99))
