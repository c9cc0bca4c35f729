"""What a handler declares about its tasks, checked where it is declared.

    @app.task(queue="images", hard_time_limit=timedelta(seconds=30))
                    │
              OptionFields (what people may type) ── checked ──> TaskOptions (frozen, durations in seconds)

Rules
 1. Nonsense is refused at birth, with the field, the value and the way out; an unknown name gets a "did you mean".
 2. A duration is given as seconds or as a `timedelta` and kept as seconds.
 3. Exception types are kept as dotted names, because they are matched against errors of other processes (see `retry.py`).
 4. What cannot be enforced is refused: a hard limit on an inline sync handler could only be noticed after the handler has returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, TypedDict, Unpack

from stem_iso import validation
from stem_iso.errors import InvalidOptions
from stem_iso.task import limits
from stem_iso.task.retry import RetryStrategy, dotted_names, strategy
from stem_iso.validation import Duration as Duration
from stem_iso.validation import Size as Size
from stem_iso.validation import did_you_mean

ErrorKinds = Iterable[type[BaseException] | str] | type[BaseException] | str


class Form(Enum):
    """How a handler runs, which decides what can be enforced on it."""

    ISOLATED = "isolated"
    ASYNC = "inline async"
    SYNC = "inline sync"


class OptionFields(TypedDict, total=False):
    """The keywords of `TaskOptions` and of `@app.task`."""

    queue: str
    max_retries: int
    soft_time_limit: Duration | None
    hard_time_limit: Duration | None
    heartbeat_timeout: Duration | None
    visibility_timeout: Duration | None
    unique: bool
    unique_for: Duration | None
    acks_late: bool
    isolate_entrypoint: Callable[..., Any] | None
    priority: int
    cpu_bound: bool
    cpus: int
    memory_limit: Size | None
    soft_limit_action: str
    retry_strategy: RetryStrategy | None
    retry_for: ErrorKinds | None
    dont_retry_for: ErrorKinds | None
    result_ttl: Duration | None
    expires: Duration | None
    rate_limit: str | None
    max_concurrency: int | None


def checked(given: Mapping[str, Any], checks: Mapping[str, Callable[[str, Any], Any]]) -> dict[str, Any]:
    """What was given, each value checked and normalised. Raises InvalidOptions."""
    for name in given:
        if name not in checks:
            raise InvalidOptions(f"unknown option {name!r}{did_you_mean(name, checks)}")
    return {name: checks[name](name, value) for name, value in given.items()}


def soft_limit_action(name: str, value: Any) -> str:
    if value not in ("event", "raise"):
        raise InvalidOptions(f"{name}: {value!r} must be 'event' or 'raise'")
    return str(value)


def _entrypoint(name: str, value: Any) -> Callable[..., Any] | None:
    if value is not None and not callable(value):
        raise InvalidOptions(f"{name}: {value!r} must be a callable (context, args) -> result")
    entrypoint: Callable[..., Any] | None = value
    return entrypoint


CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "queue": validation.queue,
    "max_retries": validation.count,
    "soft_time_limit": validation.optional_duration,
    "hard_time_limit": validation.optional_duration,
    "heartbeat_timeout": validation.optional_duration,
    "visibility_timeout": validation.optional_duration,
    "unique": validation.flag,
    "unique_for": validation.optional_duration,
    "acks_late": validation.flag,
    "isolate_entrypoint": _entrypoint,
    "priority": validation.priority,
    "cpu_bound": validation.flag,
    "cpus": validation.cores,
    "memory_limit": validation.optional_memory,
    "soft_limit_action": soft_limit_action,
    "retry_strategy": strategy,
    "retry_for": dotted_names,
    "dont_retry_for": dotted_names,
    "result_ttl": validation.optional_duration,
    "expires": validation.optional_duration,
    "rate_limit": limits.rate,
    "max_concurrency": limits.concurrency,
}


APART = "declare it isolated (isolate=True, or an isolate_entrypoint)"


@dataclass(frozen=True, init=False)
class TaskOptions:
    """Options of one handler. Durations are seconds; None means no limit, or the broker's default for `visibility_timeout`.

    `cpu_bound`: pinned to `cpus` cores of its own, where so many are free. `memory_limit`: bytes, or "512MiB", of the isolate and all that
    it started; past it they are killed.
    `rate_limit`: "100/m", so many attempts begin in any such period; `max_concurrency`: so many run at once; both over all workers. What
    must wait for one of them goes back in line, and uses up no attempt.
    `retry_for=None` retries every error; otherwise only the errors named (dotted names, subclasses included). `dont_retry_for` wins.
    Raises InvalidOptions.
    """

    queue: str = "default"
    max_retries: int = 0
    soft_time_limit: float | None = None
    hard_time_limit: float | None = None
    heartbeat_timeout: float | None = None
    visibility_timeout: float | None = None
    unique: bool = False
    unique_for: float | None = None
    acks_late: bool = True
    isolate_entrypoint: Callable[..., Any] | None = None
    priority: int = 0
    cpu_bound: bool = False
    cpus: int = 1
    memory_limit: int | None = None
    soft_limit_action: str = "event"
    retry_strategy: RetryStrategy | None = None
    retry_for: tuple[str, ...] | None = None
    dont_retry_for: tuple[str, ...] | None = None
    result_ttl: float | None = None
    expires: float | None = None
    rate_limit: str | None = None
    max_concurrency: int | None = None

    def __init__(self, **given: Unpack[OptionFields]) -> None:
        values = checked(given, CHECKS)
        for field in fields(self):
            object.__setattr__(self, field.name, values.get(field.name, field.default))
        conflict = limit_conflict(self.soft_time_limit, self.hard_time_limit)
        if conflict is None and self.unique_for is not None and not self.unique:
            conflict = f"unique_for ({self.unique_for:g} s) means nothing without unique=True"
        conflict = conflict or cores_conflict(self.cpus, self.cpu_bound)
        if conflict is not None:
            raise InvalidOptions(conflict)


def limit_conflict(soft: float | None, hard: float | None) -> str | None:
    """Why these two limits cannot be meant together, None where they can."""
    if soft is not None and hard is not None and soft >= hard:
        return f"soft_time_limit ({soft:g} s) must be below hard_time_limit ({hard:g} s)"
    return None


def cores_conflict(cpus: int, cpu_bound: bool) -> str | None:
    return None if cpus == 1 or cpu_bound else f"cpus ({cpus}) means nothing without cpu_bound=True"


def form_conflict(form: Form, said: Callable[[str], Any]) -> str | None:
    """Why what was `said(field)` cannot be enforced on a handler of this form, None where it can."""
    if form is Form.ISOLATED:
        return None
    if said("memory_limit") is not None:
        return f"memory_limit ({said('memory_limit')} bytes) cannot be enforced on an {form.value} handler: it shares its process; {APART}"
    if said("cpu_bound"):
        return f"cpu_bound (True) means nothing to an {form.value} handler: it shares its process and its cores; {APART}"
    return _thread_conflict(said) if form is Form.SYNC else None


def _thread_conflict(said: Callable[[str], Any]) -> str | None:
    way_out = f"{APART}, or make it async"
    for name in ("hard_time_limit", "heartbeat_timeout"):
        if said(name) is not None:
            return f"{name} ({said(name):g} s) cannot be enforced on an inline sync handler: a thread cannot be killed; {way_out}"
    if said("soft_limit_action") == "raise":
        return f"soft_limit_action ('raise') cannot be enforced on an inline sync handler: nothing can be raised in a thread; {way_out}"
    return None
