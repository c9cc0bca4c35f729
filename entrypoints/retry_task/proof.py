"""What must be true at the end, asked of the broker itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from entrypoints.retry_task.tasks import MAX_RETRIES, app
from stem_iso import TaskState, TaskStatus
from stem_iso.brokers.base import DeadFilter

SLACK = 1.0  # seconds, for a machine that has more to do
NOTICED = 2.0  # seconds in which another worker of the machine has taken what a dead one held


@dataclass(frozen=True)
class Redelivery:
    """Seconds from the worker's death to the start of the next delivery, and how many it may take."""

    after: float
    at_most: float

    @property
    def as_promised(self) -> bool:
        return self.after <= self.at_most


def redelivery(died_at: float, started_at: float, together: bool) -> Redelivery:
    """Both wall clock. `together`: the other worker was on the same machine, and no lease had to run out."""
    options = app.broker_options
    at_most = NOTICED if together else options.default_visibility_timeout + options.claim_interval
    return Redelivery(round(started_at - died_at, 3), round(at_most + SLACK, 3))


def proof(queue: str, failed: TaskStatus, outlived: TaskStatus, delivery: Redelivery) -> dict[str, Any]:
    """One line; its `holds` says whether all is as it must be."""
    with app.broker_pool.borrow() as broker:
        counts = next((count for count in broker.queues() if count.name == queue), None)
        dead = broker.dead_letters(DeadFilter(queue=queue))
    left = {"queued": counts.queued, "delayed": counts.delayed, "running": counts.running} if counts else {}
    letters = [{"id": one.id, "name": one.name, "attempt": one.attempt, "reason": one.reason} for one in dead]
    expected = [{"id": failed.id, "name": failed.name, "attempt": MAX_RETRIES, "reason": "max-retries-exhausted"}]
    holds = (
        not any(left.values())
        and letters == expected
        and failed.state is TaskState.FAILED
        and (outlived.state, outlived.attempt, outlived.redeliveries) == (TaskState.SUCCEEDED, 0, 1)
        and delivery.as_promised
    )
    return {"demo": "proof", "queue": queue, "queued": 0, "delayed": 0, "running": 0, **left, "dead_letters": letters, "holds": holds}
