"""Signals: `app.signals.task_retry.connect(listener)`, and the frozen value that each hands to its listeners.

    producer      app.enqueue ── before_task_publish ── broker ── after_task_publish          in the caller's thread
    worker        received ── prerun ── (succeeded | retry | failed | revoked) ── postrun     on the bus's thread, after the fact is stored
                  worker_ready … worker_stopping … worker_shutdown    isolate_spawned … isolate_recycled

Where they are emitted
 - The publish signals run in the process that makes the envelope, around the one step that stores it, inside all middleware: a producer,
   or the isolate (by command: the inline host) whose handler enqueues. Those of all parts of a canvas run when it is stored, whenever they
   will start; neither a retry nor what a schedule fires has any. `aenqueue` runs them on a thread beside the loop.
 - The others run in the worker's process: the program of an embedded `Worker`; by command the core, which imports the application, so
   that what its module connects is connected there. They share the rules of the event bus (`worker/reporting/bus.py`): one thread for all
   listeners, in order; one that lags past 10,000 waiting values loses some, and the loss is reported; none can hold up a task.

What is emitted of an attempt, by the worker that made it, once each
 1. `received` when the task has passed the gates and has a seat; `prerun` when its call is sent; one of `succeeded`, `retry`, `failed` and
    `revoked` when its end is stored; `postrun` after it, exactly for those with a `prerun`.
 2. Refused at the gates (revoked, expired, undecodable, unknown, options that cannot be met): `revoked` or `failed`, and nothing else.
    Arguments that do not fit are found out where the handler runs: such an attempt has `prerun` and `postrun`.
 3. Given back (the worker stops): `received`, and, where it had begun, `postrun` with state "queued"; it comes again, here or elsewhere.
 4. A worker that died, or lost its lease, emits no end. Whoever has the task next emits its own attempt, or `failed` where it finds that
    the task may not run again.
 5. What a schedule fires is published by whichever worker is first, and what a canvas starts later by the store: no publish signal then.
 6. Of a task that ends in the store alone, because it was revoked or purged while it waited, `revoked` is emitted by one worker of all, and
    so is `failed` of a canvas whose last part never ran. Of its other parts that were skipped nothing is emitted; their statuses say so.

A listener that raises is logged, and harms nobody; to refuse a publish is a middleware's business. A signal that nobody listens to is never
built. Values are msgspec structs: `msgspec.json.encode(value)` is an object with the signal's name under "signal".
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, TypeVar

import msgspec

from stem_iso.errors import InvalidOptions
from stem_iso.outcome import TaskError
from stem_iso.validation import did_you_mean

log = logging.getLogger("stem_iso.signals")

V = TypeVar("V")
R = TypeVar("R")


class Signal(msgspec.Struct, frozen=True, kw_only=True, tag_field="signal"):
    """`signal` is its name, `at` wall-clock seconds."""

    signal: ClassVar[str]
    at: float


class TaskSignal(Signal, frozen=True, kw_only=True):
    task_id: str
    name: str
    queue: str
    run: int
    attempt: int


# -- emitted by who publishes -----------------------------------------------------------------------------------------------------------


class BeforeTaskPublishSignal(TaskSignal, frozen=True, kw_only=True, tag="before_task_publish"):
    """About to be stored. Containers are copies: what a listener changes in them changes nothing. `not_before` and `expires` are wall-clock
    seconds; `args` are plain data by parameter name, as they travel.
    """

    signal: ClassVar[str] = "before_task_publish"
    args: dict[str, Any]
    headers: dict[str, Any]
    meta: dict[str, Any]
    priority: int
    not_before: float | None = None
    expires: float | None = None
    parent_id: str | None = None
    root_id: str | None = None


class AfterTaskPublishSignal(BeforeTaskPublishSignal, frozen=True, kw_only=True, tag="after_task_publish"):
    """Stored. `task_id` is the id that counts. `duplicate`: it is the holder's of the unique lock, nothing was stored, and what was sent
    would have been `sent_id`.
    """

    signal: ClassVar[str] = "after_task_publish"
    sent_id: str
    duplicate: bool


# -- emitted by workers ----------------------------------------------------------------------------------------------------------------


class AttemptSignal(TaskSignal, frozen=True, kw_only=True):
    """`headers` are those of its envelope; none where this worker did not make the attempt, and has no envelope of it."""

    worker_id: str
    headers: dict[str, Any] = {}


class TaskReceivedSignal(AttemptSignal, frozen=True, kw_only=True, tag="task_received"):
    """It has passed the gates, and has a seat. Emitted again where it was given back without having begun."""

    signal: ClassVar[str] = "task_received"
    redeliveries: int


class TaskPrerunSignal(AttemptSignal, frozen=True, kw_only=True, tag="task_prerun"):
    """The attempt begins: the call is on its way to its isolate or thread."""

    signal: ClassVar[str] = "task_prerun"


class TaskPostrunSignal(AttemptSignal, frozen=True, kw_only=True, tag="task_postrun"):
    """An attempt that had begun is over, and what became of it is stored. `state` is that of its task now: "succeeded", "retried",
    "failed", "cancelled", or "queued" where it was given back. `elapsed` is seconds. `killed`: its process died, or
    was killed, before the handler came to an end.
    """

    signal: ClassVar[str] = "task_postrun"
    state: str
    reason: str | None = None
    elapsed: float
    killed: bool = False


class TaskRetrySignal(AttemptSignal, frozen=True, kw_only=True, tag="task_retry"):
    """`attempt` is the one that ended; `next_attempt` is due at `due` (wall clock), after `delay` seconds. `reason`: "error", "timeout",
    "silent", "memory", "crashed", "boot-failed" or "asked". `reported`: an error tracker has the error, from where the handler ran.
    """

    signal: ClassVar[str] = "task_retry"
    reason: str
    error: TaskError | None
    next_attempt: int
    due: float
    delay: float
    reported: bool = False


class TaskSucceededSignal(AttemptSignal, frozen=True, kw_only=True, tag="task_succeeded"):
    """`result` is plain data, as it is stored; None where it takes more than 16 KiB: `app.handle(task_id).result()` has it. `result_bytes`
    is its size, encoded; `elapsed` seconds.
    """

    signal: ClassVar[str] = "task_succeeded"
    elapsed: float
    result: Any
    result_bytes: int


class TaskFailedSignal(AttemptSignal, frozen=True, kw_only=True, tag="task_failed"):
    """For good. `reason` as in its status: "error", "max-retries-exhausted", "not-retryable", "worker-lost", "redelivery-limit", …
    `reported` as in `task_retry`.
    """

    signal: ClassVar[str] = "task_failed"
    reason: str
    error: TaskError | None
    reported: bool = False


class TaskRevokedSignal(AttemptSignal, frozen=True, kw_only=True, tag="task_revoked"):
    """The task ended as cancelled; `reason` is "revoked", "expired" or "purged"."""

    signal: ClassVar[str] = "task_revoked"
    reason: str


class WorkerSignal(Signal, frozen=True, kw_only=True):
    worker_id: str


class WorkerReadySignal(WorkerSignal, frozen=True, kw_only=True, tag="worker_ready"):
    """The first look at the queue is due; isolates may still be booting."""

    signal: ClassVar[str] = "worker_ready"
    boot: str
    pid: int
    broker: str
    queues: tuple[str, ...]
    seats: int
    spares: int


class WorkerStoppingSignal(WorkerSignal, frozen=True, kw_only=True, tag="worker_stopping"):
    """It fetches no more. `at_once`: what runs is being killed; else it may end first, within the shutdown's time-out."""

    signal: ClassVar[str] = "worker_stopping"
    at_once: bool


class WorkerShutdownSignal(WorkerSignal, frozen=True, kw_only=True, tag="worker_shutdown"):
    """All is closed: the last signal of a worker. One that never was ready emits none."""

    signal: ClassVar[str] = "worker_shutdown"


class IsolateSpawnedSignal(WorkerSignal, frozen=True, kw_only=True, tag="isolate_spawned"):
    """A process was started; it may still be importing the application."""

    signal: ClassVar[str] = "isolate_spawned"
    pid: int


class IsolateRecycledSignal(WorkerSignal, frozen=True, kw_only=True, tag="isolate_recycled"):
    """It is dead. Those that a worker takes down at its end emit none."""

    signal: ClassVar[str] = "isolate_recycled"
    pid: int
    reason: str


# -- connecting ------------------------------------------------------------------------------------------------------------------------


class Channel(Generic[V]):
    """One signal of one application, and who listens to it. Any thread may connect and disconnect, at any time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.listeners: tuple[Callable[[V], object], ...] = ()  # replaced, never changed: who emits needs no lock
        self._lock = threading.Lock()

    def connect(self, listener: Callable[[V], R]) -> Callable[[V], R]:
        """Call `listener(value)` from now on; connecting it twice is connecting it once. Returns it, so that it can decorate.

        Raises InvalidOptions for what cannot be called, or is a coroutine function: listeners run on a thread without a loop.
        """
        if not callable(listener) or inspect.iscoroutinefunction(listener):
            raise InvalidOptions(
                f"{self.name}: {listener!r} must be a plain function of one value; it is called on a thread without a loop"
            )
        with self._lock:
            if listener not in self.listeners:
                self.listeners = (*self.listeners, listener)
        return listener

    def disconnect(self, listener: Callable[[V], object]) -> None:
        """Nothing happens where it was not connected."""
        with self._lock:
            self.listeners = tuple(each for each in self.listeners if each != listener)

    def emit(self, value: V) -> None:
        """Here and now, in this thread; one that raises is logged."""
        for listener in self.listeners:
            try:
                listener(value)
            except Exception:  # user code
                log.exception("the listener %r of %s raised", listener, self.name)

    def __repr__(self) -> str:
        return f"<{self.name}, {len(self.listeners)} listeners>"


class Signals:
    """`app.signals`: one attribute for each signal; iterating gives them all. Raises AttributeError for a name that is none."""

    def __init__(self) -> None:
        self.before_task_publish = Channel[BeforeTaskPublishSignal]("before_task_publish")
        self.after_task_publish = Channel[AfterTaskPublishSignal]("after_task_publish")
        self.task_received = Channel[TaskReceivedSignal]("task_received")
        self.task_prerun = Channel[TaskPrerunSignal]("task_prerun")
        self.task_postrun = Channel[TaskPostrunSignal]("task_postrun")
        self.task_retry = Channel[TaskRetrySignal]("task_retry")
        self.task_succeeded = Channel[TaskSucceededSignal]("task_succeeded")
        self.task_failed = Channel[TaskFailedSignal]("task_failed")
        self.task_revoked = Channel[TaskRevokedSignal]("task_revoked")
        self.worker_ready = Channel[WorkerReadySignal]("worker_ready")
        self.worker_stopping = Channel[WorkerStoppingSignal]("worker_stopping")
        self.worker_shutdown = Channel[WorkerShutdownSignal]("worker_shutdown")
        self.isolate_spawned = Channel[IsolateSpawnedSignal]("isolate_spawned")
        self.isolate_recycled = Channel[IsolateRecycledSignal]("isolate_recycled")

    def __iter__(self) -> Iterator[Channel[Any]]:
        return iter(tuple(vars(self).values()))

    if not TYPE_CHECKING:  # a checker that saw it would take any misspelt name for a signal

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(f"no signal {name!r}{did_you_mean(name, vars(self))}")
