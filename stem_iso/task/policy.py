"""What holds for one attempt: the handler's options, overridden by what was said at enqueue. Resolved once, then only read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from msgspec import UNSET, UnsetType

from stem_iso.errors import InvalidOptions
from stem_iso.outcome import Rejected
from stem_iso.task import checks
from stem_iso.task.envelope import Envelope
from stem_iso.task.options import Form, TaskOptions, form_conflict, limit_conflict
from stem_iso.task.retry import RetryStrategy

RESULT_TTL = 86_400.0

V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Durations are seconds. `visibility` None: the broker's default; `retry_strategy` None: the worker's."""

    soft: float | None = None
    hard: float | None = None
    heartbeat: float | None = None
    raise_soft: bool = False
    max_retries: int = 0
    visibility: float | None = None
    acks_late: bool = True
    result_ttl: float = RESULT_TTL
    retry_for: tuple[str, ...] | None = None
    dont_retry_for: tuple[str, ...] | None = None
    retry_strategy: RetryStrategy | None = None


DEFAULT_POLICY = Policy()


def resolve_policy(options: TaskOptions, envelope: Envelope, form: Form = Form.ISOLATED) -> Policy | Rejected:
    """Rejected (`invalid-options`) for a combination that only here can be seen to be wrong, or a value that no producer of ours sends."""
    policy = Policy(
        soft=said(envelope.soft_time_limit, options.soft_time_limit),
        hard=said(envelope.hard_time_limit, options.hard_time_limit),
        heartbeat=said(envelope.heartbeat_timeout, options.heartbeat_timeout),
        raise_soft=said(envelope.soft_limit_action, options.soft_limit_action) == "raise",
        max_retries=said(envelope.max_retries, options.max_retries),
        visibility=said(envelope.visibility_timeout, options.visibility_timeout),
        acks_late=said(envelope.acks_late, options.acks_late),
        result_ttl=said(envelope.result_ttl, options.result_ttl) or RESULT_TTL,
        retry_for=options.retry_for,
        dont_retry_for=options.dont_retry_for,
        retry_strategy=options.retry_strategy,
    )
    message = _nonsense(envelope) or limit_conflict(policy.soft, policy.hard) or _unenforceable(policy, form)
    return Rejected("invalid-options", message) if message else policy


def said(at_enqueue: V | UnsetType, declared: V) -> V:
    return declared if at_enqueue is UNSET else at_enqueue


def _unenforceable(policy: Policy, form: Form) -> str | None:
    return form_conflict(form, policy.hard, policy.heartbeat, "raise" if policy.raise_soft else "event")


def _nonsense(envelope: Envelope) -> str | None:
    """What is wrong with an envelope's own options: msgspec checked their types, and any program may have written them."""
    try:
        for name in ("soft_time_limit", "hard_time_limit", "heartbeat_timeout", "visibility_timeout", "result_ttl"):
            checks.optional_duration(name, said(getattr(envelope, name), None))
        checks.count("max_retries", said(envelope.max_retries, 0))
        checks.soft_limit_action("soft_limit_action", said(envelope.soft_limit_action, "event"))
    except InvalidOptions as error:
        return str(error)
    return None
