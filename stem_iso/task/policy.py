"""Policy of one attempt: the handler's options, overridden by those given at enqueue. Resolved once, then only read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msgspec import UNSET

from stem_iso.errors import InvalidOptions
from stem_iso.outcome import Rejected
from stem_iso.task.envelope import Envelope
from stem_iso.task.options import Form, TaskOptions, check_carried, cores_conflict, form_conflict, limit_conflict
from stem_iso.task.rate_limit import TaskLimits, limits_of
from stem_iso.task.retry_policy import RetryStrategy

RESULT_TTL = 86_400.0


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

    try:
        check_carried(envelope)
    except InvalidOptions as error:
        return Rejected("invalid-options", str(error))
    key = None if envelope.limit_key is UNSET else envelope.limit_key
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
        limits=limits_of(envelope.name, key, said("rate_limit"), said("max_concurrency")),
    )
    message = limit_conflict(policy.soft, policy.hard) or form_conflict(form, said)
    if message is None and envelope.cpus is not UNSET:
        message = cores_conflict(envelope.cpus, said("cpu_bound"))
    return Rejected("invalid-options", message) if message else policy
