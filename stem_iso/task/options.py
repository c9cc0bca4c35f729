"""The options of a task: a row of one table each, and what a handler declares of them.

    @app.task(queue="images", hard_time_limit=timedelta(seconds=30))    make.using(priority=9, delay=30)
                    │                                                                   │
              OptionFields ── declared ──> TaskOptions                        EnqueueFields ── enqueued ──> EnqueueOptions
                                 └────────────── OPTIONS: the check of each option ──────────────┘

Rules
 1. An option is a row of OPTIONS, a keyword of the `Fields` in which it may be given, a field of `TaskOptions` if it can be declared, and
    a field of `Envelope` if it is carried; a test holds these together. All that treats options alike goes by the table.
 2. Nonsense is refused at birth, with the field, the value and the way out; an unknown name gets a "did you mean".
 3. A duration is given as seconds or as a `timedelta` and kept as seconds.
 4. Exception types are kept as dotted names, because they are matched against errors of other processes (see `retry_policy.py`).
 5. What cannot be enforced is refused: a hard limit on an inline sync handler could only be noticed after the handler has returned.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple, TypedDict, Unpack

from msgspec import UNSET

from stem_iso.errors import InvalidOptions
from stem_iso.task import rate_limit as rate_limit_module
from stem_iso.task.codec import pack, unpack
from stem_iso.task.envelope import Envelope
from stem_iso.task.retry_policy import RetryStrategy, dotted_names, strategy
from stem_iso.validation import (
    Duration,
    Size,
    cores,
    count,
    delay,
    did_you_mean,
    flag,
    instant,
    optional_duration,
    optional_memory,
    priority,
    queue,
    text,
)

ErrorKinds = Iterable[type[BaseException] | str] | type[BaseException] | str


class Form(Enum):
    """How a handler runs, which decides what can be enforced on it."""

    ISOLATED = "isolated"
    ASYNC = "inline async"
    SYNC = "inline sync"


class OverridableFields(TypedDict, total=False):
    """What a task declares and an enqueue may override."""

    queue: str
    max_retries: int
    soft_time_limit: Duration | None
    hard_time_limit: Duration | None
    heartbeat_timeout: Duration | None
    visibility_timeout: Duration | None
    unique: bool
    unique_for: Duration | None
    acks_late: bool
    priority: int
    cpu_bound: bool
    cpus: int
    memory_limit: Size | None
    soft_limit_action: str
    result_ttl: Duration | None
    rate_limit: str | None
    max_concurrency: int | None
    on_commit: bool


class OptionFields(OverridableFields, total=False):
    """The keywords of `TaskOptions` and of `@app.task`."""

    isolate_entrypoint: Callable[..., Any] | None
    retry_strategy: RetryStrategy | None
    retry_for: ErrorKinds | None
    dont_retry_for: ErrorKinds | None
    expires: Duration | None
    redact: Iterable[str]


class EnqueueFields(OverridableFields, total=False):
    """The keywords of `Task.using` and of `app.enqueue`."""

    delay: Duration
    eta: datetime
    expires: Duration | datetime | None
    headers: Mapping[str, Any]
    meta: Mapping[str, Any]
    task_id: str
    unique_key: str
    limit_key: str


# -- checks of these options alone -----------------------------------------------------------------------------------------------------


def _entrypoint(name: str, value: Any) -> Callable[..., Any] | None:
    if value is not None and not callable(value):
        raise InvalidOptions(f"{name}: {value!r} must be a callable (context, args) -> result")
    entrypoint: Callable[..., Any] | None = value
    return entrypoint


def _soft_limit_action(name: str, value: Any) -> str:
    if value not in ("event", "raise"):
        raise InvalidOptions(f"{name}: {value!r} must be 'event' or 'raise'")
    return str(value)


def _expiry(name: str, value: Any) -> float | datetime | None:
    if isinstance(value, datetime):
        instant(name, value)
        return value
    return optional_duration(name, value)


def _parameter_names(name: str, value: Any) -> tuple[str, ...]:
    names = None if isinstance(value, str | bytes) or not isinstance(value, Iterable) else tuple(value)
    if names is None or not all(isinstance(each, str) and each for each in names):
        raise InvalidOptions(f"{name}: {value!r} must be names of parameters, such as ('password', 'card')")
    return names


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidOptions(f"{name}: {value!r} must be a mapping whose keys are strings")
    return {key: _plain(f"{name}[{key!r}]", item) for key, item in value.items()}


def _plain(name: str, value: Any) -> Any:
    """As it arrives: data that msgpack knows."""
    try:
        return unpack(pack(value))
    except TypeError as error:
        raise InvalidOptions(f"{name}: {value!r} cannot be sent: {error}") from None


# -- the table -------------------------------------------------------------------------------------------------------------------------

Check = Callable[[str, Any], Any]


class Option(NamedTuple):
    """`declared` checks what a task declares, `enqueued` what is given at enqueue; None where the option has no place there.

    `carried`: the envelope has a field of this name, UNSET where nothing was given at enqueue.
    """

    name: str
    declared: Check | None
    enqueued: Check | None
    carried: bool = False


OPTIONS = (
    Option("queue", queue, queue),
    Option("priority", priority, priority),
    Option("unique", flag, flag),
    Option("unique_for", optional_duration, optional_duration),
    Option("expires", optional_duration, _expiry),
    Option("max_retries", count, count, carried=True),
    Option("soft_time_limit", optional_duration, optional_duration, carried=True),
    Option("hard_time_limit", optional_duration, optional_duration, carried=True),
    Option("heartbeat_timeout", optional_duration, optional_duration, carried=True),
    Option("visibility_timeout", optional_duration, optional_duration, carried=True),
    Option("acks_late", flag, flag, carried=True),
    Option("cpu_bound", flag, flag, carried=True),
    Option("cpus", cores, cores, carried=True),
    Option("memory_limit", optional_memory, optional_memory, carried=True),
    Option("soft_limit_action", _soft_limit_action, _soft_limit_action, carried=True),
    Option("result_ttl", optional_duration, optional_duration, carried=True),
    Option("rate_limit", rate_limit_module.rate, rate_limit_module.rate, carried=True),
    Option("max_concurrency", rate_limit_module.concurrency, rate_limit_module.concurrency, carried=True),
    Option("limit_key", None, text, carried=True),
    Option("on_commit", flag, flag),
    Option("isolate_entrypoint", _entrypoint, None),
    Option("retry_strategy", strategy, None),
    Option("retry_for", dotted_names, None),
    Option("dont_retry_for", dotted_names, None),
    Option("redact", _parameter_names, None),
    Option("delay", None, delay),
    Option("eta", None, instant),
    Option("headers", None, _mapping),
    Option("meta", None, _mapping),
    Option("task_id", None, text),
    Option("unique_key", None, text),
)
DECLARED_CHECKS = {option.name: option.declared for option in OPTIONS if option.declared}
ENQUEUE_CHECKS = {option.name: option.enqueued for option in OPTIONS if option.enqueued}
CARRIED = tuple(option.name for option in OPTIONS if option.carried)
OVERRIDABLE = tuple(option.name for option in OPTIONS if option.declared and option.enqueued)


# Options of Celery, RQ and dramatiq by what they are here: names that are near to others of ours, or to none.
FOREIGN = {
    **dict.fromkeys(("time_limit", "timeout", "job_timeout"), "hard_time_limit"),
    **dict.fromkeys(("autoretry_for", "retry_on"), "retry_for"),
    **dict.fromkeys(("retry", "retries"), "max_retries"),
    **dict.fromkeys(("retry_backoff", "retry_backoff_max", "retry_jitter", "retry_delay", "default_retry_delay"), "retry_strategy"),
    **dict.fromkeys(("min_backoff", "max_backoff", "interval"), "retry_strategy"),
    **dict.fromkeys(("ignore_result", "store_results", "result_expires"), "result_ttl"),
    **dict.fromkeys(("ttl", "max_age"), "expires"),
    **dict.fromkeys(("countdown", "enqueue_in"), "delay"),
    "queue_name": "queue",
    "job_id": "task_id",
    "ack_late": "acks_late",
}


def hint(name: str, known: Collection[str]) -> str:
    """The end of a message about an unknown option: what it is called here, or where it belongs."""
    if name == "bind":
        return "; a task whose first parameter is annotated TaskContext gets the context"
    meant = FOREIGN.get(name, name)
    if meant in known:
        return f"; did you mean {meant!r}?"
    if meant in ENQUEUE_CHECKS:
        return f"; {meant!r} is said where a task is enqueued: .using({meant}=...)"
    if meant in DECLARED_CHECKS:
        return f"; {meant!r} is said where the task is declared"
    return did_you_mean(name, known)


def checked(given: Mapping[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    """What was given, each value checked and normalised. Raises InvalidOptions."""
    for name in given:
        if name not in checks:
            raise InvalidOptions(f"unknown option {name!r}{hint(name, checks)}")
    return {name: checks[name](name, value) for name, value in given.items()}


def check_carried(envelope: Envelope) -> None:
    """Raises InvalidOptions. msgspec checked the types of these fields, and any program may have written them."""
    for name in CARRIED:
        if (value := getattr(envelope, name)) is not UNSET:
            ENQUEUE_CHECKS[name](name, value)


# -- what a task declares --------------------------------------------------------------------------------------------------------------

APART = "declare it isolated (isolate=True, or an isolate_entrypoint)"


@dataclass(frozen=True, init=False)
class TaskOptions:
    """Options of one handler. Durations are seconds; None means no limit, or the broker's default for `visibility_timeout`.

    `cpu_bound`: pinned to `cpus` cores of its own, where so many are free. `memory_limit`: bytes, or "512MiB", of the isolate and all that
    it started; past it they are killed.
    `rate_limit`: "100/m", so many attempts begin in any such period; `max_concurrency`: so many run at once; both over all workers. What
    must wait for one of them goes back in line, and uses up no attempt.
    `on_commit`: what is enqueued inside a database transaction waits for its commit, where a framework's integration knows of transactions.
    `redact`: the names of arguments that nobody is shown: "***" stands for them in statuses, at the command line and in errors.
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
    redact: tuple[str, ...] = ()
    on_commit: bool = True

    def __init__(self, **given: Unpack[OptionFields]) -> None:
        values = checked(given, DECLARED_CHECKS)
        for field in fields(self):
            object.__setattr__(self, field.name, values.get(field.name, field.default))
        object.__setattr__(self, "_given", frozenset(values))
        conflict = limit_conflict(self.soft_time_limit, self.hard_time_limit)
        if conflict is None and self.unique_for is not None and not self.unique:
            conflict = f"unique_for ({self.unique_for:g} s) means nothing without unique=True"
        conflict = conflict or cores_conflict(self.cpus, self.cpu_bound)
        if conflict is not None:
            raise InvalidOptions(conflict)

    @property
    def given(self) -> frozenset[str]:
        """The names of the options that were said, a default value included: what was not said, an application's defaults may fill."""
        names: frozenset[str] = vars(self)["_given"]
        return names


def with_defaults(options: TaskOptions, defaults: TaskOptions, form: Form) -> TaskOptions:
    """The options of a task of this form, with `defaults` where it said nothing.

    A default that cannot be enforced on the form is left out, and so is one that means nothing beside what the task says: a soft limit at
    or above its hard one, `cpus` without `cpu_bound`, `unique_for` without `unique`. Raises InvalidOptions for a task whose own soft limit
    is at or above the default hard one: without a hard limit it would run on for ever.
    """
    missing = defaults.given - options.given - NOT_ENFORCED[form]
    if not missing:
        return options
    said = {name: getattr(options, name) for name in options.given}
    filled: Any = {name: getattr(defaults, name) for name in missing} | said
    soft, hard = filled.get("soft_time_limit"), filled.get("hard_time_limit")
    if "soft_time_limit" in missing and soft is not None and hard is not None and soft >= hard:
        del filled["soft_time_limit"]
    if "cpus" in missing and not filled.get("cpu_bound"):
        del filled["cpus"]
    if "unique_for" in missing and not filled.get("unique"):
        del filled["unique_for"]
    return TaskOptions(**filled)


def limit_conflict(soft: float | None, hard: float | None) -> str | None:
    """Why these two limits cannot be meant together, None where they can."""
    if soft is not None and hard is not None and soft >= hard:
        return f"soft_time_limit ({soft:g} s) must be below hard_time_limit ({hard:g} s)"
    return None


def cores_conflict(cpus: int, cpu_bound: bool) -> str | None:
    return None if cpus == 1 or cpu_bound else f"cpus ({cpus}) means nothing without cpu_bound=True"


NOT_ENFORCED = {
    Form.ISOLATED: frozenset[str](),
    Form.ASYNC: frozenset({"memory_limit", "cpu_bound", "cpus"}),
    Form.SYNC: frozenset({"memory_limit", "cpu_bound", "cpus", "hard_time_limit", "heartbeat_timeout", "soft_limit_action"}),
}


def form_conflict(form: Form, option: Callable[[str], Any]) -> str | None:
    """Why one of these options cannot be enforced on a handler of this form, None where it can."""
    if form is Form.ISOLATED:
        return None
    if (memory := option("memory_limit")) is not None:
        return f"memory_limit ({memory} bytes) cannot be enforced on an {form.value} handler: it shares its process; {APART}"
    if option("cpu_bound"):
        return f"cpu_bound (True) means nothing to an {form.value} handler: it shares its process and its cores; {APART}"
    return _thread_conflict(option) if form is Form.SYNC else None


def _thread_conflict(option: Callable[[str], Any]) -> str | None:
    way_out = f"{APART}, or make it async"
    for name in ("hard_time_limit", "heartbeat_timeout"):
        if option(name) is not None:
            return f"{name} ({option(name):g} s) cannot be enforced on an inline sync handler: a thread cannot be killed; {way_out}"
    if option("soft_limit_action") == "raise":
        return f"soft_limit_action ('raise') cannot be enforced on an inline sync handler: nothing can be raised in a thread; {way_out}"
    return None
