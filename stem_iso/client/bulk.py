"""Bulk actions: one action on all tasks that match a filter.

    filter ──> steps of the list, newest first ──> one order to the broker for each task ──> done | refused, by reason
                                                        └── after each step: progress(BulkResult)

Newest first, so it ends: what is enqueued meanwhile stands before the point at which the list has begun. A task is met once, so one that
fails again at once is not retried again. Each order is a step of its own, which the store carries out whole or not at all; who stops in the
middle (Ctrl-C) has done what was counted and a part of the next step at most, and may begin anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from stem_iso.client.action_log import log
from stem_iso.client.task_filter import FilterFields, checked, in_words
from stem_iso.client.task_list import MOST_A_STEP, steps
from stem_iso.errors import InvalidOptions
from stem_iso.validation import did_you_mean, flag, optional_text

if TYPE_CHECKING:
    from stem_iso.brokers.base import Broker, Replayed, StatusRecord
    from stem_iso.client.application import Application

BulkAction = Literal["retry", "revoke", "terminate", "delete", "run-now"]
BULK_ACTIONS: tuple[str, ...] = get_args(BulkAction)

GONE = "gone"  # it expired, or was deleted, after it was listed
ENDED, ACTIVE = "ended", "active"


class BulkResult(msgspec.Struct, frozen=True, kw_only=True):
    """How many tasks matched, how many the action was done to, and how many refused it; `reasons` counts the refused by why. A dry run has
    done nothing and been refused nothing."""

    matched: int = 0
    done: int = 0
    refused: int = 0
    reasons: dict[str, int] = {}


def bulk(
    app: Application,
    action: str,
    given: FilterFields,
    *,
    all: bool,
    dry_run: bool,
    by: str | None,
    progress: Callable[[BulkResult], object] | None,
) -> BulkResult:
    """Raises InvalidOptions for an unknown action, and without a filter unless `all`."""
    if action not in BULK_ACTIONS:
        meant = did_you_mean(action, BULK_ACTIONS) if isinstance(action, str) else f"; known are {', '.join(BULK_ACTIONS)}"
        raise InvalidOptions(f"action: {action!r} is none{meant}")
    which = checked(given, app.clock())
    if not flag("all", all) and not which.chooses:
        raise InvalidOptions("all: no filter is given; give one, or all=True where every task is meant")
    flag("dry_run", dry_run)
    optional_text("by", by)  # before anything is done
    result = BulkResult()
    try:
        for tasks, _ in steps(app, which, MOST_A_STEP, None, True):
            if not tasks:
                continue
            answers: list[str | None] = [None] * len(tasks) if dry_run else _answers(app, action, [task.record for task in tasks])
            result = _added(result, answers, dry_run)
            if progress is not None:
                progress(result)
    finally:
        if not dry_run and result.matched:
            log(app, f"bulk {action}", in_words(dict(given)), f"{result.done} done, {result.refused} refused", by)
    return result


def _answers(app: Application, action: str, records: list[StatusRecord]) -> list[str | None]:
    """For each why it was refused, None where it was done."""
    order = _ORDERS[action]
    with app.broker_pool.borrow() as broker:
        return [order(broker, each) for each in records]


def _added(result: BulkResult, answers: list[str | None], dry_run: bool) -> BulkResult:
    refused = Counter(answer for answer in answers if answer is not None)
    return BulkResult(
        matched=result.matched + len(answers),
        done=result.done + (0 if dry_run else len(answers) - refused.total()),
        refused=result.refused + refused.total(),
        reasons=dict(Counter(result.reasons) + refused),
    )


def _refusal(answer: Replayed | None) -> str | None:
    return GONE if answer is None else answer.refused


def _revoke(broker: Broker, task: StatusRecord, terminate: bool = False) -> str | None:
    return None if broker.revoke(task.id, terminate, task.queue) else ENDED


def _terminate(broker: Broker, task: StatusRecord) -> str | None:
    return _revoke(broker, task, True)


def _delete(broker: Broker, task: StatusRecord) -> str | None:
    return delete(broker, task.id, task.queue)


def delete(broker: Broker, id: str, queue: str | None) -> str | None:
    """Drop what is kept of a task that has ended, its dead letter too. What has not ended is refused: it is revoked first."""
    from stem_iso.brokers.base import DeadFilter

    (found,) = broker.status([id], queue)
    if found is None:
        return GONE
    if not found.state.terminal:
        return ACTIVE
    broker.purge_dead(DeadFilter([id], found.queue or None))
    return None if broker.forget(id, found.queue or None) else GONE


def _retry(broker: Broker, task: StatusRecord) -> str | None:
    return _refusal(broker.retry(task.id, task.queue))


def _run_now(broker: Broker, task: StatusRecord) -> str | None:
    return _refusal(broker.run_now(task.id, task.queue))


_ORDERS: dict[str, Callable[[Any, StatusRecord], str | None]] = {
    "retry": _retry,
    "revoke": _revoke,
    "terminate": _terminate,
    "delete": _delete,
    "run-now": _run_now,
}
