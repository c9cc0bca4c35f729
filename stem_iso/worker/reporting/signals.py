"""The emitter of signals: made only where somebody listens, sent on the bus's thread, after the fact is stored.

    Attempts             received, prerun        Recoverer, EndNoticePublisher   ended       Isolates   isolate
    PendingSettlements   settled                 WorkerRuntime, Shutdown         ready, stopping, shutdown

All are made on the consumer thread, so that listeners get those of an attempt in order. `stem_iso.signals` says which signal comes when.
"""

from __future__ import annotations

import os
import time
from typing import Any, TypeVar, assert_never

import msgspec

from stem_iso.brokers.base import Reclaimed, UnattendedEnd, Verdict
from stem_iso.isolate.interfaces import IsolateNotice
from stem_iso.outcome import TaskError, TaskState
from stem_iso.signals import (
    Channel,
    IsolateRecycledSignal,
    IsolateSpawnedSignal,
    Signals,
    TaskFailedSignal,
    TaskPostrunSignal,
    TaskPrerunSignal,
    TaskReceivedSignal,
    TaskRetrySignal,
    TaskRevokedSignal,
    TaskSucceededSignal,
    WorkerReadySignal,
    WorkerShutdownSignal,
    WorkerStoppingSignal,
)
from stem_iso.task.codec import unpack
from stem_iso.task.envelope import Envelope
from stem_iso.task.settlement import Finish, GiveBack, Plan, Retry
from stem_iso.worker.attempt import Attempt
from stem_iso.worker.options import WorkerOptions
from stem_iso.worker.reporting.bus import Bus

V = TypeVar("V")
RESULT_SHOWN = 16 << 10  # encoded bytes: what the consumer thread decodes in some ten microseconds


def about(worker_id: str, what: Envelope | Reclaimed | UnattendedEnd) -> dict[str, Any]:
    """The fields that events and signals of one attempt share, as of now."""
    return {
        "at": time.time(),
        "worker_id": worker_id,
        "task_id": what.id,
        "name": what.name,
        "queue": what.queue,
        "run": what.run,
        "attempt": what.attempt,
    }


class SignalEmitter:
    """Owned by the consumer thread."""

    def __init__(self, worker_id: str, bus: Bus, signals: Signals) -> None:
        self._worker_id, self._bus, self._signals = worker_id, bus, signals
        self._ready = False  # `worker_ready` was sent, and so `worker_shutdown` will be

    @property
    def wants_begun(self) -> bool:
        return bool(self._signals.task_prerun.listeners)

    # -- tasks ---------------------------------------------------------------------------------------------------------------------

    def received(self, attempt: Attempt) -> None:
        if (channel := self._signals.task_received).listeners:
            self._emit(channel, TaskReceivedSignal(redeliveries=attempt.envelope.redeliveries, **self._of(attempt)))

    def prerun(self, attempt: Attempt) -> None:
        if (channel := self._signals.task_prerun).listeners:
            self._emit(channel, TaskPrerunSignal(**self._of(attempt)))

    def settled(self, attempt: Attempt, plan: Plan, verdict: Verdict, elapsed: float) -> None:
        """The verdict of the broker on an attempt that ended after `elapsed` seconds."""
        if verdict is Verdict.LOST or not self._wants_ends():
            return
        if verdict is Verdict.CANCELLED:
            plan = Finish(TaskState.CANCELLED, "revoked")
        match plan:
            case Finish(state, reason):
                self._finished(attempt, plan, elapsed)
            case Retry(reason=reason):
                state = TaskState.RETRIED
                self._retry(attempt, plan)
            case GiveBack():
                state, reason = TaskState.QUEUED, None
            case _:
                assert_never(plan)
        if attempt.begun_at and (channel := self._signals.task_postrun).listeners:
            killed, of = attempt.killed, self._of(attempt)
            self._emit(channel, TaskPostrunSignal(state=state.value, reason=reason, elapsed=elapsed, killed=killed, **of))

    def _wants_ends(self) -> bool:
        signals = self._signals
        either = signals.task_postrun.listeners or signals.task_succeeded.listeners or signals.task_retry.listeners
        return bool(either or signals.task_failed.listeners or signals.task_revoked.listeners)

    def _finished(self, attempt: Attempt, plan: Finish, elapsed: float) -> None:
        signals = self._signals
        if plan.state is TaskState.SUCCEEDED:
            if signals.task_succeeded.listeners:
                result, of = plan.result or b"", self._of(attempt)
                signal = TaskSucceededSignal(elapsed=elapsed, result=_shown(result), result_bytes=len(result), **of)
                self._emit(signals.task_succeeded, signal)
        elif plan.state is TaskState.CANCELLED:
            if signals.task_revoked.listeners:
                self._emit(signals.task_revoked, TaskRevokedSignal(reason=plan.reason or "revoked", **self._of(attempt)))
        elif signals.task_failed.listeners:
            reported, of = attempt.reported, self._of(attempt)
            self._emit(signals.task_failed, TaskFailedSignal(reason=plan.reason or "", error=plan.error, reported=reported, **of))

    def _retry(self, attempt: Attempt, plan: Retry) -> None:
        if (channel := self._signals.task_retry).listeners:
            of, next, due = self._of(attempt), plan.successor.attempt, plan.successor.not_before
            due = of["at"] if due is None else due
            delay = max(0.0, due - of["at"])
            of |= {"reason": plan.reason, "error": plan.error, "reported": attempt.reported}
            self._emit(channel, TaskRetrySignal(next_attempt=next, due=due, delay=delay, **of))

    def ended(self, found: Reclaimed | UnattendedEnd, reason: str, error: TaskError | None) -> None:
        """A task whose end this worker did not make: a lease ran out, or it ended in the store."""
        of = about(self._worker_id, found)
        if found.state is TaskState.FAILED and (failed := self._signals.task_failed).listeners:
            self._emit(failed, TaskFailedSignal(reason=reason, error=error, **of))
        elif found.state is TaskState.CANCELLED and (revoked := self._signals.task_revoked).listeners:
            self._emit(revoked, TaskRevokedSignal(reason=reason, **of))

    # -- the worker ----------------------------------------------------------------------------------------------------------------

    def ready(self, options: WorkerOptions, broker: str) -> None:
        self._ready = True
        if (channel := self._signals.worker_ready).listeners:
            signal = WorkerReadySignal(
                boot=options.boot,
                pid=os.getpid(),
                broker=broker,
                queues=options.queues,
                seats=options.seats,
                spares=options.spares,
                **self._here(),
            )
            self._emit(channel, signal)

    def stopping(self, at_once: bool) -> None:
        if (channel := self._signals.worker_stopping).listeners:
            self._emit(channel, WorkerStoppingSignal(at_once=at_once, **self._here()))

    def shutdown(self) -> None:
        if self._ready and (channel := self._signals.worker_shutdown).listeners:
            self._emit(channel, WorkerShutdownSignal(**self._here()))

    def isolate(self, notice: IsolateNotice) -> None:
        if notice.action == "spawned" and (spawned := self._signals.isolate_spawned).listeners:
            self._emit(spawned, IsolateSpawnedSignal(pid=notice.pid, **self._here()))
        elif notice.action == "recycled" and (recycled := self._signals.isolate_recycled).listeners:
            self._emit(recycled, IsolateRecycledSignal(pid=notice.pid, reason=notice.reason or "", **self._here()))

    def _here(self) -> dict[str, Any]:
        return {"at": time.time(), "worker_id": self._worker_id}

    def _of(self, attempt: Attempt) -> dict[str, Any]:
        return {**about(self._worker_id, attempt.envelope), "headers": attempt.envelope.headers}

    def _emit(self, channel: Channel[V], value: V) -> None:
        self._bus.emit(channel.listeners, value)


def _shown(result: bytes) -> Any:
    if not 0 < len(result) <= RESULT_SHOWN:
        return None
    try:
        return unpack(result)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # an isolate can reply anything; whoever asks for the result gets the error
