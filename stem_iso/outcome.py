"""Outcome of one attempt, as a closed union of its endings; and the status of a task, which outcomes move.

        isolate ────┐
        inline ─────┼──> Outcome ──> settle(...) -> Plan ──> the broker ──> TaskStatus
        admission ──┘

Every ending takes this one road, a crash included, so that a limit, a retry, a lock or a chord sees each ending once.
Match with `match` and close with `assert_never`: a new ending then breaks the type check, not production.

    queued ──> running ──> succeeded | failed | cancelled        terminal: final within its run
      ^           │
      └─ retried <┘   (waiting for its next attempt)

Writes of a status are ordered by (run, attempt); `replay` of a dead letter starts a new run at attempt 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum
from typing import Annotated, Any

import msgspec

from stem_iso.json_data import inlined_schema, to_plain


class TaskError(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong, as data. `type` is the dotted name of the exception's class; `retryable` says whether policy allowed a retry.

    `output`: the last lines that the attempt printed or logged, 20 and 2 KiB at most.
    """

    type: str
    message: str = ""
    traceback: str = ""
    retryable: bool = True
    exit_code: int | None = None
    signal: str | None = None
    stack: str = ""
    output: str = ""


class Overrun(msgspec.Struct, frozen=True, array_like=True):
    """A time limit that a call reached, the soft one too. The ending, the notice, the error and the event of a time-out are made of it.

    `limit` and `elapsed` are seconds; `stack` is where the handler was. Where the limit ended the call, `signalled_at` and `dead_at` are
    seconds after the limit, and `killed` holds (pid, title) of each process killed. `silent`: the limit is `heartbeat_timeout`.
    """

    limit: float
    elapsed: float
    stack: str = ""
    signalled_at: float | None = None
    dead_at: float | None = None
    killed: tuple[tuple[int, str], ...] = ()
    silent: bool = False

    def facts(self) -> dict[str, Any]:
        """These fields by name, and none that a subclass adds."""
        return {name: getattr(self, name) for name in Overrun.__struct_fields__}


class StopReason(Enum):
    """Why the worker itself ended a call."""

    SHUTDOWN = "shutdown"
    REVOKED = "revoked"
    LEASE_LOST = "lease-lost"
    DISPLACED = "displaced"  # its process was ended for the sake of another call that would not end


class Succeeded(msgspec.Struct, frozen=True):  # of these one is made for nearly every task: a struct costs a quarter of a dataclass
    """The handler returned; `result` is its value, encoded (msgpack)."""

    result: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """The handler raised. `kinds` are the dotted names of the exception's classes, nearest first, for `retry_for`."""

    error: TaskError
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RetryAsked:
    """The handler called `context.retry()`. At most one of `countdown` (seconds) and `eta` (wall clock) is set."""

    countdown: float | None = None
    eta: float | None = None
    max_retries: int | None = None


class TimedOut(Overrun, frozen=True):
    """Killed at the hard limit, or for silence past `heartbeat_timeout` (`silent`)."""

    signalled_at: float = 0.0
    dead_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Crashed:
    """The process died under the call: `exit_code`, or the name of a `signal`; with its last stderr lines and its fault stack.

    `out_of_memory`: the kernel's out-of-memory killer was at work meanwhile, and it died of SIGKILL that was not ours. `by_operator`: an
    operator had it killed.
    """

    exit_code: int | None = None
    signal: str | None = None
    stderr: str = ""
    stack: str = ""
    out_of_memory: bool = False
    by_operator: bool = False


@dataclass(frozen=True, slots=True)
class MemoryExceeded:
    """Killed because the isolate and its descendants held `rss` bytes, more than `limit`."""

    limit: int
    rss: int


@dataclass(frozen=True, slots=True)
class BootFailed:
    """No isolate could be started for this call, several times in a row. `traceback` is the child's."""

    traceback: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The worker ended the call (shutdown, revoke with terminate, a lost lease). `started` says whether the handler had begun."""

    reason: StopReason
    started: bool


@dataclass(frozen=True, slots=True)
class Rejected:
    """The attempt never ran and never will: reason `invalid-options`, `invalid-arguments` or `undecodable`."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """The attempt never ran, as somebody wished: reason `revoked` or `expired`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unregistered:
    """No handler bears the name here: given back while `grace` is left (a rolling deploy), then dead-lettered."""

    grace_over: bool


Outcome = Succeeded | Failed | RetryAsked | TimedOut | Crashed | MemoryExceeded | BootFailed | Stopped | Rejected | Skipped | Unregistered


# -- status ----------------------------------------------------------------------------------------------------------------------------

# The reason of a task that waits for one of its limits, or because somebody paused it: nobody knows until when.
RATE_LIMIT, CONCURRENCY_LIMIT, PAUSED = "rate-limit", "concurrency-limit", "paused"
LIMITS = frozenset({RATE_LIMIT, CONCURRENCY_LIMIT, PAUSED})


class TaskState(StrEnum):
    """A string too, so that `status.state == "succeeded"` is what it looks like, as in the JSON of the command line."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRIED = "retried"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED})


class Progress(msgspec.Struct, frozen=True):
    """The newest `context.progress(percent, data)`."""

    percent: float
    data: Any = None


Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Limit = Annotated[float, msgspec.Meta(ge=0, le=1e11)]


class EndedAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt that another one followed. `state`: "retried"; "failed" or "cancelled" where it was the last of its run.

    `reason` is a word, as of a status. `started_at` is None where it never began. `error_message` is cut to 200 characters. The limits,
    seconds, are those that held, None where there were none or nobody knows them any more. `killed`: the worker ended its process.
    """

    run: int
    attempt: int
    finished_at: Moment
    started_at: Moment | None = None
    state: str = "retried"
    reason: str = ""
    error_type: str = ""
    error_message: str = ""
    soft_time_limit: Limit | None = None
    hard_time_limit: Limit | None = None
    worker_id: str = ""
    killed: bool = False


class TaskStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One task as it stands. Times are aware datetimes (UTC); `result` is set on success, `error` after a failed attempt.

    `args` are the arguments by parameter name, as the plain data that travels; those of the task's option `redact` are "***". None where
    the task's code is not here to say which these are, and of a group or a task that an older worker ended.

    `ready_at`: when its newest attempt could begin, which is when it was enqueued, or its due time, also once that has passed.

    `attempts` are those that ended and were tried again, or run anew, oldest first, the newest 20. The one that runs, or with which the
    task ended, is not among them: its times and its error are the fields here.

    An endpoint of FastAPI may return it, and may name it as what it returns: the answer is `as_dict()`.
    """

    id: str
    name: str
    queue: str
    state: TaskState
    reason: str | None = None
    run: int = 0
    attempt: int = 0
    redeliveries: int = 0
    result: Any = None
    error: TaskError | None = None
    progress: Progress | None = None
    meta: dict[str, Any] = {}
    enqueued_at: datetime | None = None
    not_before: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    worker_id: str | None = None
    parent_id: str | None = None
    root_id: str | None = None
    args: dict[str, Any] | None = None
    attempts: tuple[EndedAttempt, ...] = ()
    ready_at: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        """These fields by name, as plain JSON types: times as ISO 8601, bytes as base64, the state as its word."""
        fields: dict[str, Any] = to_plain(self)
        return fields

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Pairs of `as_dict()`, so that `dict(status)` is the same: encoders that know no class of ours take it so."""
        return iter(self.as_dict().items())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        shown = core_schema.plain_serializer_function_ser_schema(cls.as_dict, return_schema=core_schema.dict_schema())
        return core_schema.is_instance_schema(cls, serialization=shown)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return inlined_schema(cls)
