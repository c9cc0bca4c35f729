"""What holds for one attempt: the handler's options, overridden by what was said at enqueue. Resolved once, then only read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from msgspec import UNSET, UnsetType

from stem_iso import validation
from stem_iso.errors import InvalidOptions
from stem_iso.outcome import Rejected
from stem_iso.task.envelope import Envelope
from stem_iso.task.limits import TaskLimits, concurrency, limits_of, rate
from stem_iso.task.options import Form, TaskOptions, cores_conflict, form_conflict, limit_conflict, soft_limit_action
from stem_iso.task.retry import RetryStrategy

RESULT_TTL = 86_400.0

V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Durations are seconds. `visibility` None: the broker's default; `cpus` None: not cpu_bound; `retry_strategy` None: the worker's."""

    soft: float | None = None
    hard: float | None = None
    heartbeat: float | None = None
    raise_soft: bool = False
    memory: int | None = None
    cpus: int | None = None
    max_retries: int = 0
    visibility: float | None = None
    acks_late: bool = True
    result_ttl: float = RESULT_TTL
    retry_for: tuple[str, ...] | None = None
    dont_retry_for: tuple[str, ...] | None = None
    retry_strategy: RetryStrategy | None = None
    limits: TaskLimits | None = None


DEFAULT_POLICY = Policy()


def resolve_policy(options: TaskOptions, envelope: Envelope, form: Form = Form.ISOLATED) -> Policy | Rejected:
    """Rejected (`invalid-options`) for a combination that only here can be seen to be wrong, or a value that no producer of ours sends."""

    def said(name: str) -> Any:
        at_enqueue = getattr(envelope, name)
        return getattr(options, name) if at_enqueue is UNSET else at_enqueue

    wrong = _nonsense(envelope)
    if wrong is not None:
        return Rejected("invalid-options", wrong)
    policy = Policy(
        soft=said("soft_time_limit"),
        hard=said("hard_time_limit"),
        heartbeat=said("heartbeat_timeout"),
        raise_soft=said("soft_limit_action") == "raise",
        memory=said("memory_limit"),
        cpus=said("cpus") if said("cpu_bound") else None,
        max_retries=said("max_retries"),
        visibility=said("visibility_timeout"),
        acks_late=said("acks_late"),
        result_ttl=said("result_ttl") or RESULT_TTL,
        retry_for=options.retry_for,
        dont_retry_for=options.dont_retry_for,
        retry_strategy=options.retry_strategy,
        limits=limits_of(envelope.name, _given(envelope.limit_key, None), said("rate_limit"), said("max_concurrency")),
    )
    message = limit_conflict(policy.soft, policy.hard) or form_conflict(form, said)
    if message is None and envelope.cpus is not UNSET:
        message = cores_conflict(envelope.cpus, said("cpu_bound"))
    return Rejected("invalid-options", message) if message else policy


def _nonsense(envelope: Envelope) -> str | None:
    """What is wrong with an envelope's own options: msgspec checked their types, and any program may have written them."""
    try:
        for name in ("soft_time_limit", "hard_time_limit", "heartbeat_timeout", "visibility_timeout", "result_ttl"):
            validation.optional_duration(name, _given(getattr(envelope, name), None))
        validation.optional_memory("memory_limit", _given(envelope.memory_limit, None))
        validation.cores("cpus", _given(envelope.cpus, 1))
        validation.count("max_retries", _given(envelope.max_retries, 0))
        rate("rate_limit", _given(envelope.rate_limit, None))
        concurrency("max_concurrency", _given(envelope.max_concurrency, None))
        soft_limit_action("soft_limit_action", _given(envelope.soft_limit_action, "event"))
    except InvalidOptions as error:
        return str(error)
    return None


def _given(value: V | UnsetType, otherwise: V) -> V:
    return otherwise if value is UNSET else value
