"""The settlements that wait to be stored, and the events that follow when they are.

    AttemptEnded(outcome) ── settle() ──> PendingSettlement(plan) ── exchange ──> Verdict ──> event, exactly once
                                             │   ^
                                             └───┘ while the broker is away: kept, in order

Rules
 1. An outcome becomes a plan once, when the attempt ends; the retry strategy computes its delay then, and never again.
 2. Events follow the verdict: what was not stored has no event. A lost lease is an ERROR event, and nothing else.
 3. When the verdict of a task is known, only what `--burst` must wait for is remembered: the retries made here, and what was put in line
    here for its limits.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from traceback import format_exc
from typing import assert_never

import msgspec

from stem_iso.brokers.base import BrokerOptions, Receipt, Settlement, Verdict
from stem_iso.outcome import Crashed, Failed, MemoryExceeded, Outcome, Stopped, StopReason, Succeeded, TaskError, TimedOut
from stem_iso.printable import one_line
from stem_iso.task.attempt_history import ended_attempt, remember
from stem_iso.task.middleware import MiddlewareStack
from stem_iso.task.retry_policy import ExponentialJitterRetryStrategy, RetryStrategy, safe_delay
from stem_iso.task.settlement import Finish, GiveBack, Plan, Retry, Troubled, error_of, needs_delay, settle
from stem_iso.worker.attempt import Attempt
from stem_iso.worker.reporting.events import EventEmitter

BATCH = 256  # settlements in one exchange: after an outage a long list must not hold up a renewal


class PendingSettlement(msgspec.Struct):
    attempt: Attempt
    plan: Plan
    elapsed: float
    stopped: Stopped | None  # the end of an attempt that the worker took back


class PendingSettlements:
    """Owned by the consumer thread."""

    def __init__(
        self,
        events: EventEmitter,
        strategy: RetryStrategy | None,
        sizes: BrokerOptions,
        count_retries: bool,
        middleware: MiddlewareStack | None = None,
    ) -> None:
        self._events, self._middleware = events, middleware or MiddlewareStack()
        self._default = ExponentialJitterRetryStrategy()
        self._strategy = strategy or self._default
        self._max_result_bytes, self._max_payload_bytes = sizes.max_result_bytes, sizes.max_payload_bytes
        self._pending: deque[PendingSettlement] = deque()
        self._count_retries = count_retries
        self.stopping = False  # the worker is; from then on these two count
        self.killed = self.given_back = 0
        self._lined_up: dict[str, float] = {}  # id -> due (wall clock), of those that wait here for a limit; for --burst alone
        # id -> due (wall clock), queue and name, of retries made here and not seen since; for --burst alone
        self._retries: dict[str, tuple[float, str, str]] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def close(self, attempt: Attempt, outcome: Outcome, ended_at: float) -> bool:
        """Plan the settlement of an attempt that has ended. False where nothing may be settled."""
        if isinstance(outcome, Succeeded) and len(outcome.result) > self._max_result_bytes:
            outcome = self._too_large(len(outcome.result))
        delay = self._delay(attempt, outcome)
        plan = settle(attempt.envelope, outcome, attempt.policy, now=time.time(), delay=delay, meta=attempt.meta)
        if plan is None:
            return False
        attempt.killed = _killed(attempt, outcome)
        plan = _with_output(attempt, plan)
        if isinstance(plan, Retry):
            plan = self._with_history(attempt, self._with_middleware(attempt, plan), outcome, ended_at)
        elapsed = ended_at - attempt.begun_at if attempt.begun_at else 0.0
        self._pending.append(PendingSettlement(attempt, plan, elapsed, outcome if isinstance(outcome, Stopped) else None))
        return True

    def _delay(self, attempt: Attempt, outcome: Outcome) -> float | None:
        policy = attempt.policy
        if isinstance(outcome, Succeeded) or not isinstance(outcome, Troubled) or not needs_delay(attempt.envelope, outcome, policy):
            return None
        strategy = policy.retry_strategy or self._strategy
        delay, wrong = safe_delay(strategy, attempt.envelope.attempt, error_of(outcome), self._default)
        if wrong is not None:
            self._events.trouble(wrong, attempt)
        return delay

    def _with_middleware(self, attempt: Attempt, plan: Retry) -> Retry:
        if plan.error is None:
            return plan
        try:
            return replace(plan, successor=self._middleware.retry(plan.successor, plan.error))
        except Exception:  # user code: the retry counts for more than what was to travel with it
            self._events.trouble("a middleware's retry() raised", attempt, format_exc())
            return plan

    def _with_history(self, attempt: Attempt, plan: Retry, outcome: Outcome, ended_at: float) -> Retry:
        ended = ended_attempt(
            attempt.envelope,
            plan.error,
            plan.reason,
            started_at=attempt.begun_on_the_clock() if attempt.begun_at else None,
            finished_at=time.time() - (time.monotonic() - ended_at),
            worker_id=self._events.worker_id,
        )
        policy = attempt.policy
        killed = attempt.killed and not (isinstance(outcome, Crashed) and not outcome.by_operator)
        ended = msgspec.structs.replace(ended, soft_time_limit=policy.soft, hard_time_limit=policy.hard, killed=killed)
        return replace(plan, successor=remember(plan.successor, ended, self._max_payload_bytes))

    def _too_large(self, size: int) -> Failed:
        message = f"the result has {size} bytes, max_result_bytes is {self._max_result_bytes}; store it elsewhere and return where it is"
        return Failed(TaskError(type="ValueError", message=message, retryable=False), ("ValueError", "Exception"))

    # -- with the broker -----------------------------------------------------------------------------------------------------------

    def batch(self) -> list[Settlement]:
        """What the next exchange settles."""
        return [
            Settlement(pending.attempt.delivery.receipt, pending.plan, pending.attempt.meta, pending.attempt.progress)
            for pending, _ in zip(self._pending, range(BATCH), strict=False)
        ]

    def stored(self, verdicts: list[Verdict]) -> list[Attempt]:
        """Take the verdicts of the batch, in its order, and emit the events. Returns the attempts that are over."""
        over = []
        for verdict in verdicts:
            pending = self._pending.popleft()
            over.append(pending.attempt)
            self._emit_events(pending, verdict)
        return over

    def _emit_events(self, pending: PendingSettlement, verdict: Verdict) -> None:
        attempt, plan = pending.attempt, pending.plan
        self._events.signals.settled(attempt, plan, verdict, pending.elapsed)
        if verdict is Verdict.DONE:
            match plan:
                case Finish():
                    self._events.finished(attempt, plan, pending.elapsed)
                case Retry():
                    if self._count_retries:
                        envelope = attempt.envelope
                        self._retries[envelope.id] = plan.successor.not_before or 0.0, envelope.queue, envelope.name
                    self._events.retried(attempt, plan, pending.elapsed)
                case GiveBack():
                    self._given_back(attempt, pending.stopped)
                case _:
                    assert_never(plan)
        elif verdict is Verdict.CANCELLED:
            self._events.revoked(attempt, "revoked", pending.elapsed)
        elif not attempt.lost:  # else `Attempts.lost` has emitted it
            text = "the lease was lost: another worker has the task, or the broker knows it no more; what was done here does not count"
            self._events.trouble(text, attempt)

    def _given_back(self, attempt: Attempt, stopped: Stopped | None) -> None:
        """No ending: the attempt will be made again. While the worker stops, its log says what it gives back."""
        if not self.stopping or stopped is None or stopped.reason is not StopReason.SHUTDOWN:
            return
        self.killed, self.given_back = self.killed + stopped.started, self.given_back + 1
        how = "killed by the stop, and given back" if stopped.started else "given back by the stop: it had not begun"
        self._events.note(logging.INFO, f"{one_line(attempt.envelope.name)} {one_line(attempt.envelope.id)} {how}", attempt)

    # -- for --burst ---------------------------------------------------------------------------------------------------------------

    def seen(self, id: str) -> None:
        """This task was delivered again."""
        if self._count_retries:
            self._retries.pop(id, None)
            self._lined_up.pop(id, None)

    def lined_up(self, id: str, due: float) -> None:
        """This task waits for one of its limits, and comes again at `due` (wall clock) or before."""
        if self._count_retries:
            self._lined_up[id] = due

    def awaits(self, now: float, delayed: bool, takes: Callable[[str, str], bool]) -> bool:
        """Whether a retry made here, or what had to wait for a limit here, is still to come.

        One that is long due, and not ready, was taken by somebody else. What waits for a limit may be due at any time: `delayed` says
        whether these queues hold anything at all that waits for its time. `takes(queue, name)`: what is paused is not waited for.
        """
        retries = (due for due, queue, name in self._retries.values() if takes(queue, name))
        waiting = (*retries, *(self._lined_up.values() if delayed else ()))
        return any(now < due + 1.0 for due in waiting)

    def receipts(self) -> Iterator[Receipt]:
        """The receipts of settlements that are still to be stored."""
        return (pending.attempt.delivery.receipt for pending in self._pending)


def _with_output(attempt: Attempt, plan: Plan) -> Plan:
    """Its error says what was printed last."""
    if attempt.tail is None or isinstance(plan, GiveBack) or plan.error is None:
        return plan
    error = msgspec.structs.replace(plan.error, output=attempt.tail.text())
    return msgspec.structs.replace(plan, error=error) if isinstance(plan, Finish) else replace(plan, error=error)


def _killed(attempt: Attempt, outcome: Outcome) -> bool:
    """Whether its process died before the handler came to an end; a coroutine that is cancelled comes to one."""
    match outcome:
        case Crashed() | MemoryExceeded():
            return True
        case TimedOut(killed=killed):
            return attempt.isolated or bool(killed)
        case Stopped(started=started):
            return attempt.isolated and started
        case _:
            return False
