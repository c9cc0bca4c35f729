"""Settlement of an attempt: `settle` decides how it ends, its outcome in, the plan out.

    Succeeded ───────────────────────────────> Finish(succeeded)
    Failed TimedOut MemoryExceeded ──────┐
    Crashed BootFailed RetryAsked ───────┴┬──> Retry                 the policy allows it and attempts are left
                                          └──> Finish(failed)        not-retryable | max-retries-exhausted | without retries: what it was
    Rejected ────────────────────────────────> Finish(failed)        invalid-options | invalid-arguments | undecodable
    Skipped, Stopped(revoked) ───────────────> Finish(cancelled)     revoked | expired
    Stopped(shutdown) ──┬────────────────────> GiveBack              uses up nothing
                        └────────────────────> Finish(failed)        worker-lost: at most once, and it had started
    Stopped(lease lost) ─────────────────────> nothing: the delivery is somebody else's to settle
    Unregistered ───────┬────────────────────> GiveBack              a rolling deploy may bring the handler
                        └────────────────────> Finish(failed)        unregistered-task

A plan is what one ending does to the store, as data, so that a broker can carry it out in one transaction:

    Finish    the task is over: status, dead letter (exactly when it failed), lock released, waiters woken
    Retry     the same id once more: attempt + 1, not before `due`
    GiveBack  back into its queue without using up an attempt or counting a redelivery

The broker adds two truths that only it can know at that instant: a receipt that is no longer valid changes nothing (`LeaseLost`), and where
the run was revoked a `Retry`, a `GiveBack` or a failed `Finish` is carried out as `cancelled`, reason `revoked`.

Rules
 1. Pure: `now`, and `delay` (the strategy's answer, asked for by the driver where `needs_delay`), are arguments.
 2. One ending, one plan. A failed finish always has a reason.
 3. There are at most 1 + max_retries attempts in a run; a retry keeps id, run and meta.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never

import msgspec

from stem_iso.errors import InvalidOptions, IsolateBootError, IsolateCrashed, MemoryLimitExceeded, TimeoutException, UnknownTask
from stem_iso.outcome import (
    BootFailed,
    Crashed,
    Failed,
    MemoryExceeded,
    Outcome,
    Rejected,
    RetryAsked,
    Skipped,
    Stopped,
    StopReason,
    Succeeded,
    TaskError,
    TaskState,
    TimedOut,
    Unregistered,
)
from stem_iso.task.arguments import InvalidArguments
from stem_iso.task.envelope import Envelope, Undecodable
from stem_iso.task.names import dotted
from stem_iso.task.policy import DEFAULT_POLICY as DEFAULT_POLICY
from stem_iso.task.policy import RESULT_TTL
from stem_iso.task.policy import Policy as Policy
from stem_iso.task.policy import resolve_policy as resolve_policy
from stem_iso.task.retry_policy import matches
from stem_iso.validation import LONGEST

GRACE_STEP = 1.0  # seconds between two looks for a handler that a rolling deploy may bring

Troubled = Failed | TimedOut | Crashed | MemoryExceeded | BootFailed | RetryAsked  # the endings that may be tried again


class Finish(msgspec.Struct, frozen=True):  # a struct, as one is made for nearly every task: a dataclass costs four times as much
    """`state` is terminal. `ttl` is how long the status is kept, seconds. A failed task leaves one dead letter, with `reason`."""

    state: TaskState
    reason: str | None = None
    result: bytes | None = None
    error: TaskError | None = None
    ttl: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Retry:
    """`successor` replaces the envelope (attempt + 1); it is due at `successor.not_before`. `reason` and `error` go into the status."""

    successor: Envelope
    reason: str
    error: TaskError | None = None


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Back to the queue, visible after `delay` seconds. `successor`, if given, replaces the envelope (same run and attempt)."""

    delay: float = 0.0
    successor: Envelope | None = None


Plan = Finish | Retry | GiveBack


def settle(
    envelope: Envelope, outcome: Outcome, policy: Policy, *, now: float, delay: float | None = None, meta: dict[str, Any] | None = None
) -> Plan | None:
    """The plan for this ending; None where nothing may be settled (the lease is lost).

    `now` is wall-clock seconds; `delay` seconds, needed where `needs_delay` says so; `meta` what the handler wrote, None where it wrote
    nothing.
    """
    match outcome:
        case Succeeded(result):
            return Finish(TaskState.SUCCEEDED, result=result, ttl=policy.result_ttl)
        case Failed() | TimedOut() | Crashed() | MemoryExceeded() | BootFailed() | RetryAsked():
            return _again_or_over(envelope, outcome, policy, now, delay, meta)
        case Rejected():
            return reject(outcome, policy.result_ttl)
        case Skipped(reason):
            return Finish(TaskState.CANCELLED, reason, ttl=policy.result_ttl)
        case Stopped(reason=reason, started=started):
            return _stopped(envelope, reason, started, policy, meta)
        case Unregistered(grace_over=False):
            since = now if envelope.unregistered_since is None else envelope.unregistered_since
            return GiveBack(GRACE_STEP, msgspec.structs.replace(envelope, unregistered_since=since))
        case Unregistered():
            error = TaskError(type=dotted(UnknownTask), message=f"no handler is registered as {envelope.name!r}", retryable=False)
            return Finish(TaskState.FAILED, "unregistered-task", error=error, ttl=policy.result_ttl)
        case _:
            assert_never(outcome)


def reject(rejected: Rejected, ttl: float = RESULT_TTL) -> Finish:
    """The end of what never ran and never will; also of bytes that are no envelope."""
    classes: dict[str, type] = {"invalid-options": InvalidOptions, "invalid-arguments": InvalidArguments, "undecodable": Undecodable}
    kind = dotted(classes[rejected.reason]) if rejected.reason in classes else rejected.reason
    error = TaskError(type=kind, message=rejected.message, retryable=False)
    return Finish(TaskState.FAILED, rejected.reason, error=error, ttl=ttl)


def wants_retry(envelope: Envelope, outcome: Outcome, policy: Policy) -> bool:
    """Whether this ending is tried again, should nobody have revoked the run."""
    return isinstance(outcome, Troubled) and retries(envelope.attempt, outcome, policy)


def retries(attempt: int, outcome: Troubled, policy: Policy) -> bool:
    """Whether policy allows another attempt after this ending of the attempt of this number."""
    return _allowed(outcome, policy) and attempt < _most(outcome, policy)


def needs_delay(envelope: Envelope, outcome: Outcome, policy: Policy) -> bool:
    """Whether `settle` needs the strategy's delay: it is tried again, and the handler named no time itself."""
    named = isinstance(outcome, RetryAsked) and (outcome.countdown is not None or outcome.eta is not None)
    return not named and wants_retry(envelope, outcome, policy)


def error_of(outcome: Troubled) -> TaskError:
    """What is stored, and what a retry strategy is asked about."""
    match outcome:
        case Failed(error=error):
            return error
        case TimedOut():
            return TaskError(type=dotted(TimeoutException), message=str(TimeoutException(**outcome.facts())), stack=outcome.stack)
        case MemoryExceeded(limit=limit, rss=rss):
            return TaskError(type=dotted(MemoryLimitExceeded), message=str(MemoryLimitExceeded(limit, rss)))
        case Crashed(exit_code=exit_code, signal=signal, stderr=stderr, stack=stack, out_of_memory=starved, by_operator=wanted):
            crash = IsolateCrashed(exit_code, signal, out_of_memory=starved, by_operator=wanted)
            message = str(crash) + (f"\n{stderr}" if stderr else "")
            return TaskError(type=dotted(IsolateCrashed), message=message, exit_code=exit_code, signal=signal, stack=stack)
        case BootFailed(traceback=traceback):
            return TaskError(type=dotted(IsolateBootError), message=str(IsolateBootError(traceback)), traceback=traceback)
        case RetryAsked():
            return TaskError(type="stem_iso.RetryRequested", message="the handler asked for a retry")
        case _:
            assert_never(outcome)


def kinds_of(outcome: Troubled) -> tuple[str, ...]:
    """The dotted names of the error's classes, nearest first, as `retry_for` names them."""
    match outcome:
        case Failed(error=error, kinds=kinds):
            return kinds or (error.type,)
        case TimedOut():
            return _lineage(TimeoutException)
        case MemoryExceeded():
            return _lineage(MemoryLimitExceeded)
        case Crashed():
            return _lineage(IsolateCrashed)
        case BootFailed():
            return _lineage(IsolateBootError)
        case RetryAsked():
            return ()
        case _:
            assert_never(outcome)


def reason_of(outcome: Troubled) -> str:
    """Why it is tried again, in a word, for the status and the event."""
    match outcome:
        case Failed():
            return "error"
        case TimedOut(silent=silent):
            return "silent" if silent else "timeout"
        case MemoryExceeded():
            return "memory"
        case Crashed():
            return "crashed"
        case BootFailed():
            return "boot-failed"
        case RetryAsked():
            return "asked"
        case _:
            assert_never(outcome)


def _lineage(cls: type) -> tuple[str, ...]:
    return tuple(dotted(base) for base in cls.__mro__ if base is not object)


def _allowed(outcome: Troubled, policy: Policy) -> bool:
    if isinstance(outcome, RetryAsked):
        return True
    kinds = kinds_of(outcome)
    if isinstance(outcome, Failed) and not outcome.error.retryable:
        return False
    if policy.dont_retry_for is not None and matches(kinds, policy.dont_retry_for):
        return False
    return policy.retry_for is None or matches(kinds, policy.retry_for)


def _most(outcome: Troubled, policy: Policy) -> int:
    requested = outcome.max_retries if isinstance(outcome, RetryAsked) else None
    return policy.max_retries if requested is None else requested


def _again_or_over(
    envelope: Envelope, outcome: Troubled, policy: Policy, now: float, delay: float | None, meta: dict[str, Any] | None
) -> Finish | Retry:
    allowed = _allowed(outcome, policy)
    error = msgspec.structs.replace(error_of(outcome), retryable=allowed)
    if not wants_retry(envelope, outcome, policy):
        if isinstance(outcome, RetryAsked):
            error = msgspec.structs.replace(error, message=f"{error.message}, and {_why_refused(outcome, policy)}")
        return Finish(TaskState.FAILED, _why_over(outcome, policy) if allowed else "not-retryable", error=error, ttl=policy.result_ttl)
    successor = msgspec.structs.replace(
        _with_meta(envelope, meta), attempt=envelope.attempt + 1, not_before=_due(outcome, now, delay), unregistered_since=None
    )
    if isinstance(outcome, RetryAsked) and outcome.max_retries is not None:
        # What the handler asked for once holds for the attempts that follow, however they end.
        successor = msgspec.structs.replace(successor, max_retries=outcome.max_retries)
    return Retry(successor, reason_of(outcome), error)


def _why_over(outcome: Troubled, policy: Policy) -> str:
    """Retries are exhausted where there were any; else the reason is what happened, and the wish for a retry is an error."""
    if _most(outcome, policy) > 0:
        return "max-retries-exhausted"
    return "error" if isinstance(outcome, RetryAsked) else reason_of(outcome)


def _why_refused(outcome: RetryAsked, policy: Policy) -> str:
    if most := _most(outcome, policy):
        return f"its max_retries ({most}) are used up"
    return "max_retries is 0: give the task max_retries"


def _due(outcome: Troubled, now: float, delay: float | None) -> float:
    if isinstance(outcome, RetryAsked) and outcome.eta is not None:
        return outcome.eta
    if isinstance(outcome, RetryAsked) and outcome.countdown is not None:
        delay = outcome.countdown
    if delay is None:
        raise ValueError("a delay is needed here: ask the retry strategy where needs_delay() says so")
    return now + min(delay, LONGEST)


def _stopped(envelope: Envelope, reason: StopReason, started: bool, policy: Policy, meta: dict[str, Any] | None) -> Plan | None:
    match reason:
        case StopReason.REVOKED:
            return Finish(TaskState.CANCELLED, "revoked", ttl=policy.result_ttl)
        case StopReason.LEASE_LOST:
            return None
        case StopReason.SHUTDOWN | StopReason.DISPLACED if started and not policy.acks_late:
            error = TaskError(type="stem_iso.WorkerLost", message=f"its process was ended while it ran ({reason.value})", retryable=False)
            return Finish(TaskState.FAILED, "worker-lost", error=error, ttl=policy.result_ttl)
        case StopReason.SHUTDOWN | StopReason.DISPLACED:
            return GiveBack() if meta is None else GiveBack(successor=_with_meta(envelope, meta))
        case _:
            assert_never(reason)


def _with_meta(envelope: Envelope, meta: dict[str, Any] | None) -> Envelope:
    return envelope if meta is None else msgspec.structs.replace(envelope, meta=meta)
