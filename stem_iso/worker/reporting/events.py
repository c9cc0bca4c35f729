"""The emitter of events: made only if somebody listens, emitted once, and after the fact is stored.

    consumer ── completed, retried, failed, … ──> Event ──┬──> bus (listeners in this process)
                                                          └──> outbox ──> broker.emit, while somebody listens elsewhere

Each call is counted as well, whoever listens (`counters`).

All events of a worker are made here, on the consumer thread, so that every listener sees them in one order.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from functools import partial
from typing import Any

from stem_iso.brokers.base import Broker, Reclaimed, UnattendedEnd
from stem_iso.events import (
    CompletedEvent,
    ErrorEvent,
    Event,
    FailedEvent,
    HeartbeatEvent,
    IsolateEvent,
    ProgressEvent,
    RetriedEvent,
    RevokedEvent,
    StartedEvent,
    TimeoutEvent,
    WorkerEventType,
    encode,
)
from stem_iso.isolate.interfaces import IsolateNotice, LimitNotice
from stem_iso.outcome import Crashed, Failed, MemoryExceeded, Outcome, Stopped, Succeeded, TaskError, TaskState, TimedOut
from stem_iso.printable import one_line
from stem_iso.signals import Signals
from stem_iso.task.settlement import Finish, Retry
from stem_iso.worker.attempt import Attempt
from stem_iso.worker.reporting.bus import Bus
from stem_iso.worker.reporting.counters import HARD, MEMORY, OPERATOR, SILENCE, Counters
from stem_iso.worker.reporting.log import write
from stem_iso.worker.reporting.signals import SignalEmitter, about

log = logging.getLogger("stem_iso.worker")

OUTBOX = 10_000  # past this, events for other processes are dropped, the oldest first: the broker is away, or too slow for them


class EventEmitter:
    """Owned by the consumer thread. `signals` emits the signals, which are for this process alone."""

    def __init__(self, worker_id: str, bus: Bus, signals: Signals) -> None:
        self.worker_id = self._worker_id = worker_id
        self._bus = bus
        self.signals = SignalEmitter(worker_id, bus, signals)
        self.counters = Counters()
        self._forwarding = False  # whether another process listens
        self._outbox: deque[bytes] = deque(maxlen=OUTBOX)

    def wants(self, type: WorkerEventType) -> bool:
        return self._forwarding or self._bus.wants(type)

    # -- tasks ---------------------------------------------------------------------------------------------------------------------

    def started(self, attempt: Attempt) -> None:
        self.signals.prerun(attempt)
        if self.wants(WorkerEventType.STARTED):
            self._send(StartedEvent(**{**self._of(attempt), "at": attempt.begun_on_the_clock()}))

    def begun(self, attempt: Attempt) -> None:
        """Count that it began. Whenever somebody finds that out, once."""
        attempt.counted = True
        at, envelope = attempt.begun_on_the_clock(), attempt.envelope
        ready = envelope.ready_at
        self.counters.began(envelope.queue, envelope.name, at, 0.0 if ready is None else at - ready)

    def ended(self, attempt: Attempt, outcome: Outcome) -> None:
        """Its runner has let go of it. What becomes of its task is another matter."""
        if attempt.begun_at and not attempt.counted:
            self.begun(attempt)
        match outcome:
            case Succeeded() | Failed():
                return  # nearly all
            case Crashed(by_operator=wanted, out_of_memory=starved):
                self._count(attempt, "out_of_memory" if starved else "crashed")
                if wanted:
                    self.counters.killed(OPERATOR)
            case MemoryExceeded():
                self._count(attempt, "out_of_memory")
                self.counters.killed(MEMORY)
            case TimedOut(silent=silent) if attempt.isolated:
                self.counters.killed(SILENCE if silent else HARD)
                self.counters.died_late(outcome.dead_at)
            case Stopped(reason=reason, started=True) if attempt.isolated:
                self.counters.killed(reason.value)
            case _:
                pass

    def beaten(self, attempt: Attempt) -> None:
        if self.wants(WorkerEventType.HEARTBEAT):
            self._send(HeartbeatEvent(**self._of(attempt)))

    def progress(self, attempt: Attempt, percent: float, data: Any) -> None:
        if self.wants(WorkerEventType.PROGRESS):
            self._send(ProgressEvent(percent=percent, data=data, **self._of(attempt)))

    def limit(self, attempt: Attempt, notice: LimitNotice) -> None:
        self._count(attempt, "timed_out_soft" if notice.level == "soft" else "timed_out_silence" if notice.silent else "timed_out_hard")
        if self.wants(WorkerEventType.TIMEOUT):
            self._send(TimeoutEvent(level=notice.level, **notice.facts(), **self._of(attempt)))

    def finished(self, attempt: Attempt, plan: Finish, elapsed: float) -> None:
        if plan.state is TaskState.SUCCEEDED:
            self._settled(attempt, "succeeded", elapsed)
            if self.wants(WorkerEventType.COMPLETED):
                self._send(CompletedEvent(elapsed=elapsed, **self._of(attempt)))
        elif plan.state is TaskState.CANCELLED:
            self.revoked(attempt, plan.reason or "revoked", elapsed)
        else:
            self._settled(attempt, "failed", elapsed)
            if self.wants(WorkerEventType.FAILED):
                self._send(FailedEvent(reason=plan.reason or "", error=plan.error, elapsed=elapsed or None, **self._of(attempt)))

    def revoked(self, attempt: Attempt, reason: str, elapsed: float = 0.0) -> None:
        """`elapsed`: 0 where it had not begun; so below."""
        self._settled(attempt, "revoked", elapsed)
        if self.wants(WorkerEventType.REVOKED):
            self._send(RevokedEvent(reason=reason, elapsed=elapsed or None, **self._of(attempt)))

    def retried(self, attempt: Attempt, plan: Retry, elapsed: float) -> None:
        self._settled(attempt, "retried", elapsed)
        if self.wants(WorkerEventType.RETRIED):
            at, due = time.time(), plan.successor.not_before
            due = at if due is None else due
            delay, took = max(0.0, due - at), elapsed or None
            self._send(RetriedEvent(reason=plan.reason, delay=delay, due=due, error=plan.error, elapsed=took, **self._of(attempt)))

    def reclaimed(self, found: Reclaimed) -> None:
        """A lease ran out, and that ended its task."""
        error = TaskError(type="stem_iso.errors.LeaseLost", message="the worker that ran it was lost")
        self._ended(found, found.reason or "worker-lost", error)

    def unattended_end(self, found: UnattendedEnd) -> None:
        self._ended(found, found.reason, found.error)

    def _ended(self, found: Reclaimed | UnattendedEnd, reason: str, error: TaskError | None) -> None:
        """A task whose end this worker did not make."""
        base = about(self._worker_id, found)
        if found.state is TaskState.FAILED or found.state is TaskState.CANCELLED:
            word = "failed" if found.state is TaskState.FAILED else "revoked"
            self.counters.count(found.queue, found.name, base["at"], word)
        self.signals.ended(found, reason, error)
        if found.state is TaskState.FAILED and self.wants(WorkerEventType.FAILED):
            self._send(FailedEvent(reason=reason, error=error, **base))
        elif found.state is TaskState.CANCELLED and self.wants(WorkerEventType.REVOKED):
            self._send(RevokedEvent(reason=reason, **base))

    # -- the rest ------------------------------------------------------------------------------------------------------------------

    def isolate(self, notice: IsolateNotice) -> None:
        self.signals.isolate(notice)
        if self.wants(WorkerEventType.ISOLATE):
            self._send(
                IsolateEvent(
                    at=time.time(),
                    worker_id=self._worker_id,
                    action=notice.action,
                    pid=notice.pid,
                    reason=notice.reason,
                    traceback=notice.traceback,
                    title=notice.title,
                )
            )

    def trouble(self, message: str, attempt: Attempt | None = None, traceback: str = "") -> None:
        if self.wants(WorkerEventType.ERROR):
            of = self._of(attempt) if attempt is not None else {"at": time.time(), "worker_id": self._worker_id}
            self._send(ErrorEvent(message=message, traceback=traceback, **of))

    def warn(self, text: str) -> None:
        """A line of this worker's log, and no event: what an operator is to look at, and no program."""
        self.note(logging.WARNING, one_line(text))

    def note(self, level: int, text: str, attempt: Attempt | None = None) -> None:
        """As `warn`, at this level; with the fields of a task, where one is concerned."""
        if log.isEnabledFor(level):
            fields: dict[str, Any] = {"worker": self._worker_id}
            if attempt is not None:
                envelope = attempt.envelope
                fields |= {"task_id": envelope.id, "task_name": envelope.name, "queue": envelope.queue}
                fields |= {"attempt": envelope.attempt, "run": envelope.run}
            self._bus.post(partial(write, time.time(), level, text), fields, len(text) + 1)

    def forward(self, broker: Broker) -> None:
        """Once a turn. Events are no reason to stop working: a broker that refuses them loses them."""
        self._forwarding = broker.listening()
        if self._outbox:
            events = list(self._outbox)
            self._outbox.clear()
            broker.emit(events)

    def _settled(self, attempt: Attempt, word: str, elapsed: float) -> None:
        envelope = attempt.envelope
        self.counters.settled(envelope.queue, envelope.name, time.time(), word, elapsed or None)

    def _count(self, attempt: Attempt, word: str) -> None:
        self.counters.count(attempt.envelope.queue, attempt.envelope.name, time.time(), word)

    def _of(self, attempt: Attempt) -> dict[str, Any]:
        return about(self._worker_id, attempt.envelope)

    def _send(self, event: Event) -> None:
        self._bus.publish(event)
        if self._forwarding:
            self._outbox.append(encode(event))
