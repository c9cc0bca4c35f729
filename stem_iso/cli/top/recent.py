"""The last time-outs and failures, of what was found at the start and of what happens since.

    events ──────────────────> on_event ──┐
    failed tasks of the list ─> on_failed ─┼──> time_outs, failures: newest first, MOST of each
    tasks that were retried ──> drop ─────┘

A task stands among the failures once, with its newest end, and goes when it is tried again. A time-out is a thing that happened and stays;
of one attempt the hard limit takes the place of the soft one.
More than MOST are kept for a while, so that not each of many events pays for a look at all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeVar

from stem_iso.cli.top.snapshot import Failure, TimeOut
from stem_iso.events import AnyEvent, FailedEvent, TimeoutEvent
from stem_iso.outcome import TaskError, TaskStatus

K = TypeVar("K")
R = TypeVar("R", TimeOut, Failure)

MOST = 100
TEXT_LIMIT = 64 << 10  # characters of a traceback or a stack that are kept
# Parts of the events that concern us, as they lie on the wire: workers send many more of others, which are then not even decoded.
WANTED = (b"timeout", b"failed")


class Recent:
    """Owned by one thread at a time."""

    def __init__(self) -> None:
        self._time_outs: dict[tuple[str, int, int], TimeOut] = {}
        self._failures: dict[str, Failure] = {}

    def on_event(self, event: AnyEvent) -> None:
        match event:
            case TimeoutEvent():
                self._add_time_out(_time_out(event))
            case FailedEvent():
                self._add_failure(_failure(event))

    def on_failed(self, tasks: Iterable[TaskStatus]) -> None:
        """Those that stand as failed, from the list of tasks."""
        for task in tasks:
            at = task.finished_at or task.enqueued_at
            if at is None:
                continue
            error = task.error
            self._add_failure(
                Failure(
                    at=at.timestamp(),
                    task_id=task.id,
                    name=task.name,
                    queue=task.queue,
                    reason=task.reason or "",
                    run=task.run,
                    attempt=task.attempt,
                    **_of_error(error),
                )
            )
            if error is not None and error.stack and error.type.endswith("TimeoutException"):
                self._add_time_out(_stored_time_out(task, error, at.timestamp()))

    def standing(self) -> list[str]:
        """Ids of the failures that are shown."""
        return list(_newest(self._failures))

    def drop(self, ids: Collection[str]) -> None:
        """These have not failed any more."""
        for id in ids:
            self._failures.pop(id, None)

    def time_outs(self) -> list[TimeOut]:
        return list(_newest(self._time_outs).values())

    def failures(self) -> list[Failure]:
        return list(_newest(self._failures).values())

    def _add_time_out(self, found: TimeOut) -> None:
        key = found.task_id, found.run, found.attempt
        known = self._time_outs.get(key)
        # One from the list of tasks knows no limit: what the event said of the same attempt is worth more.
        if known is None or known.level == "soft" or found.limit is not None:
            self._time_outs[key] = found
        if len(self._time_outs) > 2 * MOST:
            self._time_outs = _newest(self._time_outs)

    def _add_failure(self, found: Failure) -> None:
        known = self._failures.get(found.task_id)
        if known is None or (found.run, found.at) >= (known.run, known.at):
            self._failures[found.task_id] = found
        if len(self._failures) > 2 * MOST:
            self._failures = _newest(self._failures)


def _newest(kept: dict[K, R]) -> dict[K, R]:
    """MOST of them, newest first."""
    return dict(sorted(kept.items(), key=lambda item: -item[1].at)[:MOST])


def _time_out(event: TimeoutEvent) -> TimeOut:
    return TimeOut(
        at=event.at,
        task_id=event.task_id,
        name=event.name,
        queue=event.queue,
        level="silence" if event.silent else event.level,
        limit=event.limit,
        stack=event.stack[:TEXT_LIMIT],
        worker_id=event.worker_id,
        run=event.run,
        attempt=event.attempt,
    )


def _stored_time_out(task: TaskStatus, error: TaskError, at: float) -> TimeOut:
    return TimeOut(
        at=at,
        task_id=task.id,
        name=task.name,
        queue=task.queue,
        level="hard",
        limit=None,
        stack=error.stack[:TEXT_LIMIT] if error.stack else "",
        worker_id=task.worker_id or "",
        run=task.run,
        attempt=task.attempt,
    )


def _failure(event: FailedEvent) -> Failure:
    return Failure(
        at=event.at,
        task_id=event.task_id,
        name=event.name,
        queue=event.queue,
        reason=event.reason,
        run=event.run,
        attempt=event.attempt,
        **_of_error(event.error),
    )


def _of_error(error: TaskError | None) -> dict[str, str]:
    if error is None:
        return {}
    return {
        "error_type": error.type,
        "message": error.message[:TEXT_LIMIT],
        "traceback": (error.traceback or "")[-TEXT_LIMIT:],
        "stack": (error.stack or "")[:TEXT_LIMIT],
    }
