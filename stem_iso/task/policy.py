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
    redact: tuple[str, ...] = ()


DEFAULT_POLICY = Policy()


def resolve_policy(options: TaskOptions, envelope: Envelope, form: Form = Form.ISOLATED) -> Policy | Rejected:
    """Rejected (`invalid-options`) for a combination that only here can be seen to be wrong, or a value that no producer of ours sends."""

    def option(name: str) -> Any:
        at_enqueue = getattr(envelope, name)
        return getattr(options, name) if at_enqueue is UNSET else at_enqueue

    try:
        check_carried(envelope)
    except InvalidOptions as error:
        return Rejected("invalid-options", str(error))
    key = None if envelope.limit_key is UNSET else envelope.limit_key
    policy = Policy(
        soft=option("soft_time_limit"),
        hard=option("hard_time_limit"),
        heartbeat=option("heartbeat_timeout"),
        raise_soft=option("soft_limit_action") == "raise",
        memory=option("memory_limit"),
        cpus=option("cpus") if option("cpu_bound") else None,
        max_retries=option("max_retries"),
        visibility=option("visibility_timeout"),
        acks_late=option("acks_late"),
        result_ttl=option("result_ttl") or RESULT_TTL,
        retry_for=options.retry_for,
        dont_retry_for=options.dont_retry_for,
        retry_strategy=options.retry_strategy,
        redact=options.redact,
        limits=limits_of(envelope.name, key, option("rate_limit"), option("max_concurrency")),
    )
    message = limit_conflict(policy.soft, policy.hard) or form_conflict(form, option)
    if message is None and envelope.cpus is not UNSET:
        message = cores_conflict(envelope.cpus, option("cpu_bound"))
    return Rejected("invalid-options", message) if message else policy
