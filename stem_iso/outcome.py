"""Outcome: the closed union of endings of one attempt.

        isolate ────┐
        inline ─────┼──> Outcome ──> settle(...) -> Plan ──> the broker
        admission ──┘

Every ending takes this one road, a crash included, so that a limit, a retry, a lock or a chord sees each ending once.
Match with `match` and close with `assert_never`: a new ending then breaks the type check, not production.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec


class TaskError(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong, as data. `type` is the dotted name of the exception's class; `retryable` says whether policy allowed a retry."""

    type: str
    message: str = ""
    traceback: str = ""
    retryable: bool = True
    exit_code: int | None = None
    signal: str | None = None
    stack: str = ""


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


@dataclass(frozen=True, slots=True)
class Succeeded:
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

    `out_of_memory`: the kernel's out-of-memory killer was at work meanwhile, and it died of SIGKILL that was not ours.
    """

    exit_code: int | None = None
    signal: str | None = None
    stderr: str = ""
    stack: str = ""
    out_of_memory: bool = False


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
