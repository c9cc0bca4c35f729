"""Queues as they stand: depth, age, pause, who serves them, and how fast they are worked off.

broker.queue_states ──┐
broker.workers ───────┼──> QueueStats
broker.counts ────────┘    the two newest minutes, for the rate
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from stem_iso.brokers.base import WorkerInfo
    from stem_iso.brokers.operations import QueueState, TaskCounts
    from stem_iso.client.application import Application

FINISHED = ("succeeded", "failed", "revoked")


class QueueStats(msgspec.Struct, frozen=True, kw_only=True):
    """A queue as it stands. `oldest_age`: seconds for which the oldest ready task has been ready, None where none is; `rate`: tasks that
    ended per second, over the last minute; `served_by`: ids of the workers that take from it and were heard of within 5 s;
    `by_priority`: ready tasks."""

    name: str
    queued: int
    delayed: int
    running: int
    dead: int
    oldest_age: float | None
    paused: bool
    rate: float
    served_by: list[str]
    by_priority: dict[int, int]


def queue_stats(app: Application) -> list[QueueStats]:
    """By name: those that hold something, are served, are paused, or were used within the last day."""
    now = app.clock()
    minute = int(now // 60)
    with app.broker_pool.borrow() as broker:
        states, workers, counts = broker.queue_states(), broker.workers(), broker.counts(minute - 1, minute)
    return stats_of_queues(states, workers, counts, now)


def stats_of_queues(
    states: Iterable[QueueState], workers: Iterable[WorkerInfo], counts: Iterable[TaskCounts], now: float
) -> list[QueueStats]:
    """`counts`: those of the minute of `now` (wall clock) and of the one before."""
    rates, known = _rates(counts, now), [worker for worker in workers if worker.answers]
    return [_stats(state, known, rates) for state in states]


def _rates(counts: Iterable[TaskCounts], now: float) -> Mapping[str, float]:
    """By queue. Of the minute before, only the share counts that lies within the last 60 s, as if its ends were spread evenly."""
    elapsed, rates = now % 60, defaultdict[str, float](float)
    for each in counts:
        share = 1.0 if each.minute == int(now // 60) else 1 - elapsed / 60
        rates[each.queue] += share * sum(each.counts.get(word, 0) for word in FINISHED) / 60
    return rates


def _stats(state: QueueState, workers: Iterable[WorkerInfo], rates: Mapping[str, float]) -> QueueStats:
    return QueueStats(
        name=state.name,
        queued=state.queued,
        delayed=state.delayed,
        running=state.running,
        dead=state.dead,
        oldest_age=state.oldest_age,
        paused=state.paused,
        rate=rates.get(state.name, 0.0),
        served_by=sorted(worker.id for worker in workers if state.name in worker.queues),
        by_priority=dict(state.by_priority),
    )
