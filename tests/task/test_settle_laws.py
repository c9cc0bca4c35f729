"""Laws of `settle`: whatever happens to an attempt, one plan follows, and it is the right kind."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stem_iso.outcome import (
    Crashed,
    Failed,
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
from stem_iso.task.envelope import Envelope
from stem_iso.task.options import TaskOptions
from stem_iso.task.policy import Policy, resolve_policy
from stem_iso.task.settlement import Finish, GiveBack, Plan, Retry, kinds_of, needs_delay, settle, wants_retry
from tests.task.making import envelopes, metas, outcomes, policies, seconds, troubled

NOW = 1_000_000.0
laws = settings(max_examples=200, deadline=None)


def plan_of(envelope: Envelope, outcome: Outcome, policy: Policy, delay: float = 1.0, meta: dict[str, Any] | None = None) -> Plan | None:
    """As the worker does: the delay is there only where it was asked for."""
    asked = delay if needs_delay(envelope, outcome, policy) else None
    return settle(envelope, outcome, policy, now=NOW, delay=asked, meta=meta)


@laws
@given(envelopes, outcomes, policies)
def test_every_ending_has_one_plan_but_a_lost_lease(envelope: Envelope, outcome: Outcome, policy: Policy) -> None:
    lost = isinstance(outcome, Stopped) and outcome.reason is StopReason.LEASE_LOST
    plan = plan_of(envelope, outcome, policy)
    assert (plan is None) is lost
    assert plan is None or isinstance(plan, Finish | Retry | GiveBack)


@laws
@given(envelopes, outcomes, policies)
def test_whatever_fails_says_why_and_what_succeeds_has_no_error(envelope: Envelope, outcome: Outcome, policy: Policy) -> None:
    plan = plan_of(envelope, outcome, policy)
    if isinstance(plan, Finish):
        assert plan.state.terminal
        assert (plan.state is TaskState.FAILED) == (plan.error is not None)
        assert (plan.state is TaskState.SUCCEEDED) == (plan.reason is None) == (plan.result is not None)
        assert plan.ttl == policy.result_ttl


@laws
@given(envelopes, outcomes, policies, metas | st.none())
def test_a_successor_is_the_same_task_in_the_same_run(
    envelope: Envelope, outcome: Outcome, policy: Policy, meta: dict[str, int] | None
) -> None:
    plan = plan_of(envelope, outcome, policy, meta=meta)
    if isinstance(plan, Retry):
        assert plan.successor.attempt == envelope.attempt + 1
        assert plan.successor.meta == (envelope.meta if meta is None else meta)
    successor = getattr(plan, "successor", None)
    if successor is not None:
        same = ("id", "name", "args", "queue", "priority", "headers", "run", "redeliveries", "lock", "enqueued_at", "parent_id", "root_id")
        assert all(getattr(successor, name) == getattr(envelope, name) for name in same)
    if isinstance(plan, GiveBack) and successor is not None:
        assert successor.attempt == envelope.attempt


@laws
@given(st.data(), policies)
def test_there_are_never_more_than_one_plus_max_retries_attempts(data: st.DataObject, policy: Policy) -> None:
    envelope = Envelope(id="t", name="n", args=msgspec.Raw(b"\x80"))
    most, attempts = policy.max_retries, 0
    while True:
        attempts += 1
        outcome = data.draw(troubled)
        if isinstance(outcome, RetryAsked) and outcome.max_retries is not None:
            most = max(most, outcome.max_retries)
        plan = plan_of(envelope, outcome, policy)
        if not isinstance(plan, Retry):
            break
        envelope = plan.successor
    assert attempts <= 1 + most
    assert isinstance(plan, Finish)
    assert plan.reason in {"not-retryable", "max-retries-exhausted", "error", "timeout", "silent", "memory", "crashed", "boot-failed"}
    assert most > 0 or plan.reason != "max-retries-exhausted"


@laws
@given(envelopes, outcomes, policies, seconds)
def test_a_retry_comes_after_the_delay_that_was_asked_for(envelope: Envelope, outcome: Outcome, policy: Policy, delay: float) -> None:
    plan = plan_of(envelope, outcome, policy, delay)
    assert isinstance(plan, Retry) == wants_retry(envelope, outcome, policy)
    if isinstance(plan, Retry):
        expected = outcome.countdown if isinstance(outcome, RetryAsked) and outcome.countdown is not None else delay
        assert plan.successor.not_before == NOW + expected
        assert plan.reason


@laws
@given(envelopes, troubled)
def test_an_error_that_is_not_to_be_retried_is_not(envelope: Envelope, outcome: Any) -> None:
    assume(not isinstance(outcome, RetryAsked))
    policy = Policy(max_retries=9, dont_retry_for=(kinds_of(outcome)[-1],))
    plan = plan_of(envelope, outcome, policy)
    assert isinstance(plan, Finish)
    assert plan.reason == "not-retryable"
    assert plan.error is not None
    assert not plan.error.retryable


# -- the single rules ------------------------------------------------------------------------------------------------------------------

ENVELOPE = Envelope(id="t", name="n", args=msgspec.Raw(b"\x80"), attempt=1)
FAILURE = Failed(TaskError(type="shop.Refused"), ("shop.Refused", "ValueError", "Exception", "BaseException"))


def test_a_task_without_retries_fails_by_what_happened_and_exhausts_nothing() -> None:
    for outcome, reason in ((FAILURE, "error"), (RetryAsked(), "error"), (TimedOut(limit=1.0, elapsed=1.0), "timeout")):
        plan = plan_of(msgspec.structs.replace(ENVELOPE, attempt=0), outcome, Policy())
        assert isinstance(plan, Finish)
        assert plan.reason == reason


@pytest.mark.parametrize(
    ("own", "asked", "attempt", "message"),
    [
        (0, None, 0, "the handler asked for a retry, and max_retries is 0: give the task max_retries"),
        (3, None, 3, "the handler asked for a retry, and its max_retries (3) are used up"),
        (0, 2, 2, "the handler asked for a retry, and its max_retries (2) are used up"),
        (5, 0, 0, "the handler asked for a retry, and max_retries is 0: give the task max_retries"),
    ],
)
def test_a_retry_that_was_asked_for_and_is_refused_says_why(own: int, asked: int | None, attempt: int, message: str) -> None:
    envelope = Envelope(id="a", name="n", args=msgspec.Raw(b"\x80"), attempt=attempt)
    plan = settle(envelope, RetryAsked(countdown=1.0, max_retries=asked), Policy(max_retries=own), now=0.0)
    assert isinstance(plan, Finish) and plan.error is not None and plan.error.message == message
    assert plan.reason == ("error" if "is 0" in message else "max-retries-exhausted")


def test_retry_for_matches_subclasses_and_nothing_else() -> None:
    assert wants_retry(ENVELOPE, FAILURE, Policy(max_retries=3, retry_for=("ValueError",)))
    assert not wants_retry(ENVELOPE, FAILURE, Policy(max_retries=3, retry_for=("KeyError",)))
    assert not wants_retry(ENVELOPE, FAILURE, Policy(max_retries=3, retry_for=()))


@pytest.mark.parametrize("name", ["stem_iso.errors.TimeoutException", "TimeoutError", "OSError", "stem_iso.errors.StemError"])
def test_a_time_out_is_known_by_every_class_it_has(name: str) -> None:
    assert wants_retry(ENVELOPE, TimedOut(1, 1), Policy(max_retries=3, retry_for=(name,)))
    assert not wants_retry(ENVELOPE, Crashed(1), Policy(max_retries=3, retry_for=("TimeoutError",)))


def test_at_most_once_a_shutdown_ends_what_had_started_and_gives_back_what_had_not() -> None:
    early = Policy(acks_late=False, max_retries=3)
    lost = plan_of(ENVELOPE, Stopped(StopReason.SHUTDOWN, started=True), early)
    assert isinstance(lost, Finish)
    assert (lost.state, lost.reason) == (TaskState.FAILED, "worker-lost")
    assert plan_of(ENVELOPE, Stopped(StopReason.SHUTDOWN, started=False), early) == GiveBack()
    assert plan_of(ENVELOPE, Stopped(StopReason.SHUTDOWN, started=True), Policy()) == GiveBack()


def test_at_most_once_a_failure_is_retried_as_ever() -> None:
    assert wants_retry(ENVELOPE, FAILURE, Policy(acks_late=False, max_retries=3))


def test_what_a_handler_asked_for_holds_for_the_attempts_that_follow() -> None:
    plan = plan_of(ENVELOPE, RetryAsked(countdown=1, max_retries=5), Policy(max_retries=0))
    assert isinstance(plan, Retry)
    policy = resolve_policy(TaskOptions(), plan.successor)
    assert isinstance(policy, Policy)
    assert policy.max_retries == 5


def test_an_eta_is_kept_to_the_second() -> None:
    plan = plan_of(ENVELOPE, RetryAsked(eta=NOW + 77), Policy(max_retries=3))
    assert isinstance(plan, Retry)
    assert plan.successor.not_before == NOW + 77


def test_an_unknown_name_remembers_when_it_was_first_met() -> None:
    plan = plan_of(ENVELOPE, Unregistered(grace_over=False), Policy())
    assert isinstance(plan, GiveBack)
    assert plan.successor is not None
    assert (plan.delay > 0, plan.successor.unregistered_since) == (True, NOW)
    again = settle(plan.successor, Unregistered(grace_over=False), Policy(), now=NOW + 5)
    assert isinstance(again, GiveBack)
    assert again.successor == plan.successor


@pytest.mark.parametrize(
    ("outcome", "state", "reason"),
    [
        (Succeeded(b"\x01"), TaskState.SUCCEEDED, None),
        (Rejected("invalid-options", "x"), TaskState.FAILED, "invalid-options"),
        (Rejected("undecodable", "x"), TaskState.FAILED, "undecodable"),
        (Skipped("expired"), TaskState.CANCELLED, "expired"),
        (Skipped("revoked"), TaskState.CANCELLED, "revoked"),
        (Stopped(StopReason.REVOKED, True), TaskState.CANCELLED, "revoked"),
        (Unregistered(grace_over=True), TaskState.FAILED, "unregistered-task"),
    ],
)
def test_endings_that_are_final_at_once(outcome: Outcome, state: TaskState, reason: str | None) -> None:
    plan = plan_of(ENVELOPE, outcome, Policy(max_retries=9))
    assert isinstance(plan, Finish)
    assert (plan.state, plan.reason) == (state, reason)


def test_a_forgotten_delay_is_a_fault_of_the_driver() -> None:
    with pytest.raises(ValueError, match="needs_delay"):
        settle(ENVELOPE, FAILURE, Policy(max_retries=3), now=NOW)
