"""Every error that stem_iso raises, as one tree.

    StemError
    ├── InvalidOptions (ValueError)          an option that cannot be meant; names the field, the value, the way out
    │   └── Misfit (TypeError)               parts of a canvas that cannot follow one another
    ├── UnknownTask (LookupError)            no handler bears this name
    ├── UnknownResult (LookupError)          no task of this id: it never was, or its result has expired
    ├── UnknownSchedule (LookupError)        no schedule of this name is in the broker
    ├── PayloadTooLarge (ValueError)         arguments past `max_payload_bytes`
    ├── BrokerUnavailable (ConnectionError)  the store could not be reached; it says what may be stored
    ├── LeaseLost                            the delivery belongs to another worker now; do not settle it
    ├── WaitRefused (RuntimeError)           a handler may not wait for the result of another task
    ├── ActionRefused (RuntimeError)         what was asked for does not fit how the task stands
    │   └── RetryRefused                     the task has not failed, or cannot run again
    ├── IsolateError
    │   ├── TimeoutException (TimeoutError)  killed at its hard limit
    │   ├── MemoryLimitExceeded              killed over its memory limit
    │   ├── IsolateCrashed                   the process died under the call
    │   ├── IsolateBootError                 no isolate could be started; carries the child's traceback
    │   ├── RemoteError                      an error of another process that has no class here
    │   └── RemoteTraceback                  never raised: the last `__cause__` of an error that came from an isolate
    └── TaskFailed ── TaskCancelled          what `handle.result()` raises
    SoftTimeLimitExceeded (BaseException)    a broad `except Exception` must not swallow it

Errors are values too: each can be built from its fields alone and survives a pickle, because it may travel between processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stem_iso.outcome import TaskError

if TYPE_CHECKING:
    from stem_iso.outcome import TaskStatus


class StemError(Exception):
    """The root of all errors of this package but `SoftTimeLimitExceeded`."""


class InvalidOptions(StemError, ValueError):
    """An option, or a combination of options, that cannot be meant. The message names the field, the value and the way out."""


class Misfit(InvalidOptions, TypeError):
    """Parts that cannot be composed: a link that does not fit what stands before it, or something that is no part. Says which, and why."""


class UnknownTask(StemError, LookupError):
    """No handler is registered under this name."""


class UnknownResult(StemError, LookupError):
    """There is no task with this id: it never existed, or its result has expired. Waiting longer would not help."""


class UnknownSchedule(StemError, LookupError):
    """No schedule of this name is in the broker: it was removed, or no worker of the application that declares it has started yet."""


class PayloadTooLarge(StemError, ValueError):
    """The arguments are larger than `max_payload_bytes`; send a reference (a path, a key) instead of the data."""


class BrokerUnavailable(StemError, ConnectionError):
    """The broker could not be reached in time, or refused.

    `unsure`: what was asked was sent, and no answer came; it may have been done or not, and the message says so. Of an enqueue, `task_ids`
    are the ids that it gave: enqueued again with the same `task_id`, a task that is there already makes no second one.
    """

    def __init__(self, *args: object, unsure: bool = False, task_ids: Sequence[str] = ()) -> None:
        super().__init__(*args)
        self.unsure, self.task_ids = unsure, tuple(task_ids)


class LeaseLost(StemError):
    """The delivery belongs to another worker now; do not settle it."""


class WaitRefused(StemError, RuntimeError):
    """A handler may not wait for the result of another task: nobody knows which worker would run it. Compose them with chain or chord."""


class IsolateError(StemError):
    """What can happen to a call because it runs in a process of its own."""


class TimeoutException(IsolateError, TimeoutError):
    """The call was killed, with all its descendants, at its hard time limit; or, where it is `silent`, because it gave no sign of life for
    the `limit` of `heartbeat_timeout`.

    `limit` and `elapsed` are seconds; `signalled_at` and `dead_at` are seconds after the limit; `killed` holds a
    (pid, title) of each process killed; `stack` is the Python stack of the stuck handler, empty if it blocked the signal.
    """

    def __init__(
        self,
        limit: float,
        elapsed: float = 0.0,
        stack: str = "",
        signalled_at: float = 0.0,
        dead_at: float = 0.0,
        killed: tuple[tuple[int, str], ...] = (),
        silent: bool = False,
    ) -> None:
        super().__init__(limit, elapsed, stack, signalled_at, dead_at, killed, silent)
        self.limit, self.elapsed, self.stack = limit, elapsed, stack
        self.signalled_at, self.dead_at, self.killed, self.silent = signalled_at, dead_at, killed, silent

    def __str__(self) -> str:
        if self.silent:
            return f"silent for {self.limit:g} s (heartbeat_timeout)"
        return f"hard time limit of {self.limit:g} s reached"


class MemoryLimitExceeded(IsolateError):
    """The call was killed, with all its descendants, because they held more memory than its limit. Both figures are bytes."""

    def __init__(self, limit: int, rss: int = 0) -> None:
        super().__init__(limit, rss)
        self.limit, self.rss = limit, rss

    def __str__(self) -> str:
        return f"memory limit of {_mebibytes(self.limit)} exceeded: {_mebibytes(self.rss)} were in use"


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.4g} MiB"


class IsolateCrashed(IsolateError):
    """The process died under the call. `exit_code` or `signal` (a name such as "SIGSEGV") says how; `stderr` holds its last lines.

    `out_of_memory`: the kernel's out-of-memory killer was at work when it died of SIGKILL. `by_operator`: an operator had it killed.
    """

    def __init__(
        self,
        exit_code: int | None = None,
        signal: str | None = None,
        stderr: str = "",
        stack: str = "",
        out_of_memory: bool = False,
        by_operator: bool = False,
    ) -> None:
        # Left out where it is False: an older version, which takes five, may read the error.
        super().__init__(exit_code, signal, stderr, stack, out_of_memory, *((True,) if by_operator else ()))
        self.exit_code, self.signal, self.stderr, self.stack, self.out_of_memory = exit_code, signal, stderr, stack, out_of_memory
        self.by_operator = by_operator

    def __str__(self) -> str:
        if self.by_operator:
            return "the isolate was killed by an operator under the call"
        how = f"signal {self.signal}" if self.signal else f"exit code {self.exit_code}"
        why = ", killed by the kernel, which was out of memory" if self.out_of_memory else ""
        return f"the isolate died under the call: {how}{why}"


class IsolateBootError(IsolateError):
    """No isolate could be started. `traceback` is the child's own, where it lived long enough to send one."""

    def __init__(self, traceback: str = "") -> None:
        super().__init__(traceback)
        self.traceback = traceback

    def __str__(self) -> str:
        lines = self.traceback.strip().splitlines()
        return f"isolates do not start: {lines[-1] if lines else 'the process died before it was ready'}"


class RemoteError(IsolateError):
    """An error of another process whose class does not exist, or cannot be rebuilt, here."""

    def __init__(self, type: str, message: str = "", traceback: str = "") -> None:
        super().__init__(type, message, traceback)
        self.type, self.message, self.traceback = type, message, traceback

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


class RemoteTraceback(IsolateError):
    """The traceback of another process, as text. It stands as the last `__cause__` of an error from there, so that both are printed."""

    def __init__(self, traceback: str = "") -> None:
        super().__init__(traceback)
        self.traceback = traceback

    def __str__(self) -> str:
        return f'\n"""\n{self.traceback}"""'


class TaskFailed(StemError):
    """The task ended without a result. `status` is its whole `TaskStatus`; `error` is a `TaskError` always: where none is stored, one of
    type "Failed" with the reason as its message."""

    error: TaskError

    def __init__(self, status: TaskStatus, error: TaskError | None = None) -> None:
        super().__init__(status, error)
        self.status = status
        self.error = error or status.error or TaskError(type="Failed", message=status.reason or "failed", retryable=False)

    def __str__(self) -> str:
        return f"{self._ended()}: {self.error.type}: {self.error.message}"

    def _ended(self) -> str:
        return f"task {self.status.name} ({self.status.id}) {self.status.state.value} [{self.status.reason}]"


class TaskCancelled(TaskFailed):
    """The task was revoked, purged, or expired, so it has no result. `error` has the type "Cancelled" and the reason as its message; what
    its last attempt ended with, if one ran, is in `status.error`."""

    def __init__(self, status: TaskStatus, error: TaskError | None = None) -> None:
        super().__init__(status, TaskError(type="Cancelled", message=status.reason or "cancelled", retryable=False))

    def __str__(self) -> str:
        return self._ended()


class ActionRefused(StemError, RuntimeError):
    """What was asked for does not fit how the task stands; the message says why, and what can be done instead. Nothing was changed."""


class RetryRefused(ActionRefused):
    """The task cannot run again as it stands; the message says why, and what can be done instead. Nothing was changed."""


class SoftTimeLimitExceeded(BaseException):
    """Raised in a handler at its soft limit, once, where `soft_limit_action="raise"`. Clean up and leave; the hard limit follows."""


def let_out(error: StopIteration) -> RuntimeError:
    """What is raised in its place by an iterator, or into a coroutine: there it would be taken for the end of the results (PEP 479)."""
    made = RuntimeError("the function let out a StopIteration")
    made.__cause__ = error
    return made
