"""States of queues: what stands in each, by priority, how old its oldest is, and whether it is paused.

    registry ─┐
    workers ──┼─> names ── one look at each slot ──> QueueState        a queue that nobody uses and that holds nothing is left out
    pauses ───┘

The oldest is sought at the head of each list, for a list is in the order in which its tasks became ready. What was given back, or called
from the line of a limit, stands at the head as well, and is as old as its envelope says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stem_iso.brokers.operations import Pauses, QueueState
from stem_iso.brokers.redis.corrupt_records import DAMAGE
from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall
from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.redis.queues import QueueRegistry
from stem_iso.brokers.redis.records import laid_over
from stem_iso.task.envelope import decode

USED = 86_400.0  # seconds


def queue_states(
    client: RedisClient, registry: QueueRegistry, served: Sequence[str], pauses: Pauses, dead_letter_ttl: float
) -> list[QueueState]:
    """`served`: by workers that live."""
    unused = registry.unused_for()
    shown = {*served, *pauses.queues, *(name for name, seconds in unused.items() if seconds <= USED)}
    names = sorted({*shown, *unused})
    answers = client.run([ScriptCall("queue_state", queue_key(name), (dead_letter_ttl,)) for name in names])
    found = [_state(name, answer, name in pauses.queues) for name, answer in zip(names, answers, strict=True)]
    return [each for each in found if each.name in shown or each.queued or each.delayed or each.running or each.dead]


def _state(name: str, answer: Sequence[Any], paused: bool) -> QueueState:
    now, delayed, running, dead, due, ready, heads = answer
    ages = [float(now) - float(due)] if due else []
    for head, begun in heads:
        try:
            envelope = laid_over(decode(head), None, begun)
        except DAMAGE:  # Undecodable among them: nobody knows how old it is
            continue
        since = max(envelope.enqueued_at, envelope.not_before or 0.0)
        if since:
            ages.append(max(0.0, float(now) - since))
    return QueueState(
        name=name,
        by_priority={priority: count for priority, count in enumerate(ready) if count > 0},
        delayed=delayed,
        running=running,
        dead=dead,
        oldest_age=max(ages, default=None),
        paused=paused,
    )
