"""States of queues and of limits: questions that change nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from stem_iso.brokers.operations import LimitState, QueueState
from stem_iso.brokers.sqlite import counts, pauses, workers
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.values import count, is_count, is_text, moment, seconds, text

# What came due and was not moved yet is ready, as in `status.queues`.
_READY = """
SELECT queue, rank, count(*) FROM task WHERE state = 0 GROUP BY queue, rank
UNION ALL SELECT queue, rank, count(*) FROM task WHERE state = 1 AND at <= ? GROUP BY queue, rank"""
_DELAYED = "SELECT queue, count(*) FROM task WHERE state = 1 AND at > ? GROUP BY queue"
_RUNNING = "SELECT queue, count(*) FROM task WHERE state = 2 GROUP BY queue"
_DEAD = "SELECT queue, count(*) FROM dead WHERE died > ? GROUP BY queue"
_FIRST = "SELECT enqueued, at FROM task WHERE state = 0 AND queue = ? AND rank = ? ORDER BY seq LIMIT 1"
_DUE = "SELECT min(at) FROM task WHERE state = 1 AND queue = ?"


def queue_states(turn: Transaction, dead_letter_ttl: float) -> list[QueueState]:
    ready: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    since: dict[str, float] = {}
    for queue, rank, many in turn.all(_READY, (turn.now,)):
        name = text(queue)
        ready[name][9 - rank if isinstance(rank, int) else 0] += many
        begun = _since(turn.all(_FIRST, (queue, rank)) if is_text(queue) else [])
        due = turn.one(_DUE, (queue,)) if is_text(queue) else None
        if isinstance(due, int | float) and due <= turn.now:
            begun = due if begun is None else min(begun, due)
        if begun is not None:
            since[name] = min(begun, since.get(name, begun))
    delayed = _counted(turn.all(_DELAYED, (turn.now,)))
    running = _counted(turn.all(_RUNNING))
    dead = _counted(turn.all(_DEAD, (turn.now - dead_letter_ttl,)))
    paused = pauses.paused(turn).queues
    served = {queue for worker in workers.workers(turn) for queue in worker.queues}
    return [
        QueueState(
            name=name,
            by_priority=dict(ready[name]) if name in ready else {},
            delayed=delayed.get(name, 0),
            running=running.get(name, 0),
            dead=dead.get(name, 0),
            oldest_age=max(0.0, turn.now - since[name]) if name in since else None,
            paused=name in paused,
        )
        for name in sorted({*ready, *delayed, *running, *dead, *paused, *served, *counts.used(turn)})
    ]


def _counted(rows: Iterable[Any]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for queue, many in rows:
        found[text(queue)] += count(many)
    return found


def _since(rows: list[Any]) -> float | None:
    """Since when the row has been ready: it was enqueued, or it came due."""
    times = [at for row in rows for at in map(moment, row) if at is not None]
    return max(times) if times else None


_LIMITS = """
SELECT name, count, period, most, running, waiting FROM (
  SELECT name, count, period, most, until, (SELECT count(*) FROM task WHERE slot = bucket.name) AS running,
    (SELECT count(*) FROM task WHERE waits = bucket.name AND state IN (0, 1)) AS waiting FROM bucket)
WHERE running > 0 OR waiting > 0 OR until > ? ORDER BY name LIMIT ?"""


def limit_states(turn: Transaction, most: int) -> list[LimitState]:
    return [_limit(*row) for row in turn.all(_LIMITS, (turn.lease_now, most))]


def _limit(name: Any, starts: Any, period: Any, most: Any, running: Any, waiting: Any) -> LimitState:
    rate = count(starts)
    return LimitState(
        bucket=text(name),
        count=rate,
        period=(seconds(period) or 0.0) if rate else 0.0,
        concurrency=most if is_count(most) else None,
        running=count(running),
        waiting=count(waiting),
    )
