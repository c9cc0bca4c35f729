"""Options are refused where they are given, with the field, the value and the way out."""

from __future__ import annotations

import dataclasses
import pickle
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stem_iso import ExponentialJitterRetryStrategy, InvalidOptions, SoftTimeLimitExceeded, Stem, TaskOptions, TimeoutException
from stem_iso.outcome import Rejected
from stem_iso.task.enqueue_options import NO_OPTIONS, Declared, EnqueueOptions, envelope_of
from stem_iso.task.envelope import Envelope
from stem_iso.task.options import (
    CARRIED,
    DECLARED_CHECKS,
    ENQUEUE_CHECKS,
    FOREIGN,
    OPTIONS,
    OVERRIDABLE,
    EnqueueFields,
    Form,
    OptionFields,
    OverridableFields,
)
from stem_iso.task.policy import Policy, resolve_policy


class Refused(ValueError):
    pass


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("queue", ""),
        ("queue", " images"),
        ("queue", "a,b"),
        ("queue", 3),
        ("max_retries", -1),
        ("max_retries", True),
        ("max_retries", 1.5),
        ("soft_time_limit", 0),
        ("soft_time_limit", float("nan")),
        ("hard_time_limit", float("inf")),
        ("hard_time_limit", 10**400),
        ("hard_time_limit", "30"),
        ("hard_time_limit", True),
        ("heartbeat_timeout", timedelta(seconds=-1)),
        ("visibility_timeout", -5),
        ("unique", "yes"),
        ("acks_late", 0),
        ("isolate_entrypoint", "shop:send"),
        ("cpu_bound", 1),
        ("cpus", 0),
        ("memory_limit", "much"),
        ("memory_limit", 512),
        ("priority", 10),
        ("priority", -1),
        ("soft_limit_action", "kill"),
        ("retry_strategy", 3),
        ("retry_for", (3,)),
        ("retry_for", int),
        ("dont_retry_for", "no such name"),
        ("result_ttl", 0),
        ("expires", -1),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidOptions, match=field):
        TaskOptions(**{field: value})


def test_the_table_and_what_is_typed_name_the_same_options() -> None:
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)
    assert set(DECLARED_CHECKS) == OptionFields.__optional_keys__ == {field.name for field in dataclasses.fields(TaskOptions)}
    assert set(ENQUEUE_CHECKS) == EnqueueFields.__optional_keys__
    assert {*OVERRIDABLE} == {*OverridableFields.__optional_keys__, "expires"}


def test_what_is_carried_is_a_field_of_the_envelope_that_says_nothing_by_default() -> None:
    unset = {field.name for field in msgspec.structs.fields(Envelope) if field.default is msgspec.UNSET}
    assert {*CARRIED} == unset


@pytest.mark.parametrize(
    ("typed", "meant"), [("hard_timelimit", "hard_time_limit"), ("retries", "max_retries"), ("unique_fro", "unique_for")]
)
def test_an_unknown_option_gets_a_did_you_mean(typed: str, meant: str) -> None:
    with pytest.raises(InvalidOptions, match=f"unknown option '{typed}'.*{meant}"):
        TaskOptions(**cast(Any, {typed: 1}))
    with pytest.raises(InvalidOptions, match="unknown option"):
        EnqueueOptions().merge({typed: 1})


@pytest.mark.parametrize(
    ("typed", "declared", "enqueued"),
    [
        ("time_limit", "did you mean 'hard_time_limit'?", "did you mean 'hard_time_limit'?"),
        ("job_timeout", "did you mean 'hard_time_limit'?", "did you mean 'hard_time_limit'?"),
        ("autoretry_for", "did you mean 'retry_for'?", "'retry_for' is said where the task is declared"),
        ("retry_backoff", "did you mean 'retry_strategy'?", "'retry_strategy' is said where the task is declared"),
        ("countdown", "'delay' is said where a task is enqueued: .using(delay=...)", "did you mean 'delay'?"),
        ("eta", "'eta' is said where a task is enqueued: .using(eta=...)", None),
        ("redact", None, "'redact' is said where the task is declared"),
        ("ignore_result", "did you mean 'result_ttl'?", "did you mean 'result_ttl'?"),
        ("bind", "annotated TaskContext gets the context", "annotated TaskContext gets the context"),
    ],
)
def test_an_option_of_another_queue_is_told_by_its_name_here(typed: str, declared: str | None, enqueued: str | None) -> None:
    for give, message in (
        (lambda: TaskOptions(**cast(Any, {typed: 1})), declared),
        (lambda: EnqueueOptions().merge({typed: 1}), enqueued),
    ):
        if message is not None:
            with pytest.raises(InvalidOptions, match=re.escape(f"unknown option '{typed}'; ") + ".*" + re.escape(message)):
                give()


def test_options_of_other_queues_are_told_by_names_that_exist() -> None:
    assert set(FOREIGN.values()) <= {option.name for option in OPTIONS}
    assert not set(FOREIGN) & {option.name for option in OPTIONS}


@pytest.mark.parametrize(("soft", "hard"), [(5, 5), (90, 60), (timedelta(seconds=2), 1.5)])
def test_the_soft_limit_is_below_the_hard_one(soft: Any, hard: Any) -> None:
    with pytest.raises(InvalidOptions, match=r"soft_time_limit .* must be below hard_time_limit"):
        TaskOptions(soft_time_limit=soft, hard_time_limit=hard)
    with pytest.raises(InvalidOptions, match="must be below"):
        EnqueueOptions().merge({"soft_time_limit": soft, "hard_time_limit": hard})


def test_unique_for_needs_unique() -> None:
    with pytest.raises(InvalidOptions, match="unique=True"):
        TaskOptions(unique_for=5)


def test_durations_are_kept_in_seconds_and_errors_by_name() -> None:
    options = TaskOptions(
        hard_time_limit=timedelta(minutes=1),
        soft_time_limit=20,
        retry_for=(Refused, "shop.Gone", "builtins.KeyError"),
        dont_retry_for=OSError,
    )
    assert (options.hard_time_limit, options.soft_time_limit) == (60.0, 20.0)
    assert options.retry_for == (f"{__name__}.Refused", "shop.Gone", "KeyError")
    assert options.dont_retry_for == ("OSError",)
    ours = TaskOptions(retry_for=("stem_iso.TimeoutException", TimeoutException, SoftTimeLimitExceeded))
    assert ours.retry_for == ("stem_iso.errors.TimeoutException",) * 2 + ("stem_iso.errors.SoftTimeLimitExceeded",)


def test_options_are_a_frozen_value() -> None:
    options = TaskOptions(queue="a", max_retries=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.queue = "b"  # type: ignore[misc]
    assert options == TaskOptions(max_retries=2, queue="a")
    assert dataclasses.replace(options, queue="b") == TaskOptions(max_retries=2, queue="b")
    assert pickle.loads(pickle.dumps(options)) == options


# -- what was said at enqueue over what the handler declared ---------------------------------------------------------------------------

BARE = Envelope(id="t", name="n", args=msgspec.Raw(b"\x80"))
DECLARED = TaskOptions(max_retries=3, soft_time_limit=20, hard_time_limit=30, visibility_timeout=60, acks_late=False, result_ttl=5)


def test_what_was_not_given_is_the_handlers() -> None:
    policy = resolve_policy(DECLARED, BARE)
    assert policy == Policy(soft=20, hard=30, max_retries=3, visibility=60, acks_late=False, result_ttl=5)


def test_a_default_value_given_at_enqueue_overrides() -> None:
    envelope = envelope_of(
        Declared("n", DECLARED), {}, EnqueueOptions().merge({"max_retries": 0, "hard_time_limit": None, "acks_late": True}), id="t", now=0
    )
    policy = resolve_policy(DECLARED, envelope)
    assert isinstance(policy, Policy)
    assert (policy.max_retries, policy.hard, policy.acks_late) == (0, None, True)


def test_a_combination_that_only_the_worker_sees_is_rejected_there() -> None:
    envelope = envelope_of(Declared("n"), {}, EnqueueOptions().merge({"hard_time_limit": 10}), id="t", now=0)
    rejected = resolve_policy(DECLARED, envelope)
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "invalid-options"
    assert "soft_time_limit (20 s) must be below hard_time_limit (10 s)" in rejected.message
    with pytest.raises(InvalidOptions, match="must be below"):
        envelope_of(Declared("n", DECLARED), {}, EnqueueOptions().merge({"hard_time_limit": 10}), id="t", now=0)


@pytest.mark.parametrize("overrides", [{"hard_time_limit": 10}, {"heartbeat_timeout": 10}, {"soft_limit_action": "raise"}])
def test_what_cannot_be_enforced_on_a_thread_is_refused(overrides: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions, match=r"inline sync handler.*isolate=True"):
        envelope_of(Declared("n", TaskOptions(), Form.SYNC), {}, EnqueueOptions().merge(overrides), id="t", now=0)
    envelope = envelope_of(Declared("n"), {}, EnqueueOptions().merge(overrides), id="t", now=0)
    assert isinstance(resolve_policy(TaskOptions(), envelope, Form.SYNC), Rejected)
    assert isinstance(resolve_policy(TaskOptions(), envelope, Form.ASYNC), Policy)


@pytest.mark.parametrize("overrides", [{"memory_limit": "1GiB"}, {"cpu_bound": True}])
@pytest.mark.parametrize("form", [Form.SYNC, Form.ASYNC])
def test_what_only_a_process_of_its_own_can_have_is_refused_inline(overrides: dict[str, Any], form: Form) -> None:
    with pytest.raises(InvalidOptions, match=f"{next(iter(overrides))}.*{form.value} handler.*isolate=True"):
        envelope_of(Declared("n", TaskOptions(), form), {}, EnqueueOptions().merge(overrides), id="t", now=0)
    envelope = envelope_of(Declared("n"), {}, EnqueueOptions().merge(overrides), id="t", now=0)
    assert isinstance(resolve_policy(TaskOptions(), envelope, form), Rejected)
    assert isinstance(resolve_policy(TaskOptions(), envelope, Form.ISOLATED), Policy)


def test_cores_without_cpu_bound_mean_nothing_wherever_they_are_given() -> None:
    with pytest.raises(InvalidOptions, match="cpu_bound=True"):
        TaskOptions(cpus=2)
    with pytest.raises(InvalidOptions, match="cpu_bound=True"):
        envelope_of(Declared("n", TaskOptions()), {}, EnqueueOptions().merge({"cpus": 2}), id="t", now=0)
    envelope = envelope_of(Declared("n"), {}, EnqueueOptions().merge({"cpus": 2}), id="t", now=0)
    assert isinstance(resolve_policy(TaskOptions(), envelope), Rejected)
    assert isinstance(resolve_policy(TaskOptions(cpu_bound=True), envelope), Policy)


def test_cores_and_memory_given_at_enqueue_override() -> None:
    declared = TaskOptions(cpu_bound=True, cpus=2, memory_limit="1GiB")
    overrides = EnqueueOptions().merge({"cpus": 3, "memory_limit": "2GiB"})
    policy = resolve_policy(declared, envelope_of(Declared("n", declared), {}, overrides, id="t", now=0))
    assert isinstance(policy, Policy) and (policy.cpus, policy.memory) == (3, 2 << 30)
    overrides = EnqueueOptions().merge({"cpu_bound": False, "memory_limit": None})
    policy = resolve_policy(declared, envelope_of(Declared("n", declared), {}, overrides, id="t", now=0))
    assert isinstance(policy, Policy) and (policy.cpus, policy.memory) == (None, None)


@pytest.mark.parametrize("field", ["hard_time_limit", "visibility_timeout", "result_ttl"])
@pytest.mark.parametrize("value", [-1.0, 0.0, float("nan"), float("inf")])
def test_numbers_that_no_producer_of_ours_sends_are_rejected(field: str, value: float) -> None:
    assert isinstance(resolve_policy(TaskOptions(), msgspec.structs.replace(BARE, **{field: value})), Rejected)


@pytest.mark.parametrize("overrides", [{"limit_key": ""}, {"cpus": 0}, {"soft_limit_action": "kill"}, {"rate_limit": "often"}])
def test_other_values_that_no_producer_of_ours_sends_are_rejected_too(overrides: dict[str, Any]) -> None:
    rejected = resolve_policy(TaskOptions(), msgspec.structs.replace(BARE, **overrides))
    assert isinstance(rejected, Rejected) and next(iter(overrides)) in rejected.message


# -- the envelope ----------------------------------------------------------------------------------------------------------------------

UNIQUE = Declared("thumbs.make", TaskOptions(queue="images", unique=True, unique_for=300))


def lock_of(args: dict[str, Any], **overrides: Any) -> str | None:
    return envelope_of(UNIQUE, args, EnqueueOptions().merge(overrides), id="t", now=0).lock


def test_the_unique_key_is_made_of_queue_task_and_arguments_alone() -> None:
    assert lock_of({"a": 1, "b": {"x": 1, "y": 2}}) == lock_of({"b": {"y": 2, "x": 1}, "a": 1}, headers={"h": 1}, meta={"m": 1}, priority=3)
    assert lock_of({"a": 1}) != lock_of({"a": 2})
    assert lock_of({"a": 1}) != lock_of({"a": 1}, queue="other")
    assert lock_of({"a": {1, 2, 3}}) == lock_of({"a": {3, 2, 1}})


def test_a_key_of_ones_own_replaces_the_arguments_and_says_unique() -> None:
    assert lock_of({"a": 1}, unique_key="cat") == lock_of({"a": 2}, unique_key="cat") == "images/thumbs.make/cat"
    plain = Declared("n", TaskOptions())
    assert envelope_of(plain, {}, EnqueueOptions().merge({"unique_key": "a/b"}), id="t", now=0).lock == "default/n/a%2Fb"
    assert envelope_of(plain, {}, EnqueueOptions().merge({"unique_key": "a", "unique": False}), id="t", now=0).lock is None


def test_unique_can_be_switched_off_and_takes_its_life_with_it() -> None:
    envelope = envelope_of(UNIQUE, {}, EnqueueOptions().merge({"unique": False}), id="t", now=0)
    assert (envelope.lock, envelope.unique_for) == (None, None)
    assert envelope_of(UNIQUE, {}, NO_OPTIONS, id="t", now=0).unique_for == 300
    with pytest.raises(InvalidOptions, match="unique_for"):
        envelope_of(Declared("n"), {}, EnqueueOptions().merge({"unique_for": 5}), id="t", now=0)


def test_times_are_reckoned_from_the_moment_of_enqueue() -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    later = envelope_of(
        Declared("n", TaskOptions(expires=60)), {}, EnqueueOptions().merge({"delay": timedelta(seconds=5)}), id="t", now=100.0
    )
    assert (later.enqueued_at, later.not_before, later.expires) == (100.0, 105.0, 160.0)
    dated = envelope_of(Declared("n"), {}, EnqueueOptions().merge({"eta": at, "expires": at}), id="t", now=100.0)
    assert (dated.not_before, dated.expires) == (at.timestamp(), at.timestamp())
    assert envelope_of(Declared("n"), {}, EnqueueOptions().merge({"delay": 0}), id="t", now=100.0).not_before is None
    with pytest.raises(InvalidOptions, match="delay or eta"):
        EnqueueOptions().merge({"delay": 5}).merge({"eta": at})


@pytest.mark.parametrize(
    "overrides",
    [{"eta": 5}, {"delay": -1}, {"headers": [1]}, {"meta": {1: 2}}, {"headers": {"h": object()}}, {"task_id": ""}, {"unique_key": 3}],
)
def test_nonsense_at_enqueue_is_refused_by_name(overrides: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions, match=next(iter(overrides))):
        EnqueueOptions().merge(overrides)


def test_the_broker_learns_the_handlers_visibility_and_the_lineage() -> None:
    envelope = envelope_of(Declared("n", DECLARED), {}, NO_OPTIONS, id="t", now=0, lineage=("p", "r"))
    assert (envelope.visibility_timeout, envelope.parent_id, envelope.root_id) == (60, "p", "r")
    assert envelope.hard_time_limit is msgspec.UNSET


# -- retry strategies ------------------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.floats(0.001, 100), st.floats(100, 1e6), st.integers(0, 5000), st.floats(0, 1, exclude_max=True))
def test_the_delay_is_in_the_last_quarter_below_the_cap(base: float, most: float, attempt: int, roll: float) -> None:
    from stem_iso.outcome import TaskError

    delay = ExponentialJitterRetryStrategy(base, most, dice=lambda: roll).next_delay(attempt, TaskError(type="ValueError"))
    capped = min(base * 2 ** min(attempt, 60), most)
    assert 0.75 * capped <= delay <= capped * (1 + 1e-12)


@pytest.mark.parametrize(("base", "most"), [(0, 5), (10, 5), (float("nan"), 5), (1, float("inf"))])
def test_a_strategy_that_cannot_be_meant_is_refused(base: float, most: float) -> None:
    with pytest.raises(InvalidOptions):
        ExponentialJitterRetryStrategy(base, most)


@pytest.mark.parametrize("field", ["headers", "meta"])
def test_a_map_with_something_that_cannot_travel_is_refused_by_field_and_key(field: str) -> None:
    task = Stem("memory://").task(name="make")(lambda: None)
    with pytest.raises(InvalidOptions, match=rf"{field}\['x'\].*cannot be sent"):
        task.using(**{field: {"x": object()}})  # type: ignore[misc]
    assert task.using(**{field: {"x": Path("/a")}}).options.given[field] == {"x": "/a"}  # type: ignore[misc]
