"""Events of a worker, as frozen values. Logging, callbacks, iterators and other processes subscribe to them.

Each event has `type, at (wall clock), worker_id`; one that concerns a task also `task_id, name, queue, run, attempt`. On the wire an event
is a msgpack or JSON map with its type in `type`, so that `decode` finds the class again.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar

import msgspec

from stem_iso.json_data import to_plain
from stem_iso.outcome import TaskError


class WorkerEventType(StrEnum):
    """A string too: `event.type == "timeout"`."""

    STARTED = "started"
    HEARTBEAT = "heartbeat"
    PROGRESS = "progress"
    TIMEOUT = "timeout"
    COMPLETED = "completed"
    RETRIED = "retried"
    FAILED = "failed"
    REVOKED = "revoked"
    ERROR = "error"
    ISOLATE = "isolate"


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    type: ClassVar[WorkerEventType]
    at: float
    worker_id: str

    def as_dict(self) -> dict[str, Any]:
        """Its fields by name, `type` too, as plain JSON types: what `stem-iso events --json` prints."""
        fields: dict[str, Any] = to_plain(self)
        return fields


class TaskEvent(Event, frozen=True, kw_only=True):
    task_id: str
    name: str
    queue: str
    run: int
    attempt: int


class StartedEvent(TaskEvent, frozen=True, kw_only=True, tag="started"):
    """The attempt begins: the call is on its way to its isolate or thread."""

    type: ClassVar[WorkerEventType] = WorkerEventType.STARTED


class HeartbeatEvent(TaskEvent, frozen=True, kw_only=True, tag="heartbeat"):
    type: ClassVar[WorkerEventType] = WorkerEventType.HEARTBEAT


class ProgressEvent(TaskEvent, frozen=True, kw_only=True, tag="progress"):
    type: ClassVar[WorkerEventType] = WorkerEventType.PROGRESS
    percent: float
    data: Any = None


class TimeoutEvent(TaskEvent, frozen=True, kw_only=True, tag="timeout"):
    """A limit was reached. `level` is "soft" or "hard"; `limit` and `elapsed` are seconds; `stack` is where the handler was.

    A hard one comes after the death: `signalled_at` and `dead_at` are seconds after the limit, `killed` holds (pid, title) of each process.
    `silent`: the limit is `heartbeat_timeout`, which ends a handler as a hard one does.
    """

    type: ClassVar[WorkerEventType] = WorkerEventType.TIMEOUT
    level: str
    limit: float
    elapsed: float
    stack: str = ""
    signalled_at: float | None = None
    dead_at: float | None = None
    killed: tuple[tuple[int, str], ...] = ()
    silent: bool = False


class CompletedEvent(TaskEvent, frozen=True, kw_only=True, tag="completed"):
    type: ClassVar[WorkerEventType] = WorkerEventType.COMPLETED
    elapsed: float


class RetriedEvent(TaskEvent, frozen=True, kw_only=True, tag="retried"):
    """`attempt` is the one that ended; the next is due at `due` (wall clock), after `delay` seconds. `elapsed` as of FailedEvent."""

    type: ClassVar[WorkerEventType] = WorkerEventType.RETRIED
    reason: str
    delay: float
    due: float
    error: TaskError | None = None
    elapsed: float | None = None


class FailedEvent(TaskEvent, frozen=True, kw_only=True, tag="failed"):
    """`elapsed`: seconds of the attempt that ended; None where none had begun, or another worker's did."""

    type: ClassVar[WorkerEventType] = WorkerEventType.FAILED
    reason: str
    error: TaskError | None = None
    elapsed: float | None = None


class RevokedEvent(TaskEvent, frozen=True, kw_only=True, tag="revoked"):
    """The task ended as `cancelled`; `reason` is "revoked", "expired" or "purged". `elapsed` as of FailedEvent."""

    type: ClassVar[WorkerEventType] = WorkerEventType.REVOKED
    reason: str
    elapsed: float | None = None


class ErrorEvent(Event, frozen=True, kw_only=True, tag="error"):
    """Something that is nobody's outcome went wrong: a listener, a strategy, the broker. Task fields are set where one is concerned."""

    type: ClassVar[WorkerEventType] = WorkerEventType.ERROR
    message: str
    traceback: str = ""
    task_id: str | None = None
    name: str | None = None
    queue: str | None = None
    run: int | None = None
    attempt: int | None = None


class IsolateEvent(Event, frozen=True, kw_only=True, tag="isolate"):
    """The life of an isolate. `action`: "spawned", "ready", "recycled" (with `reason`), "boot-failed" (with `traceback`), "stuck".

    "stuck" is about a process that was to die and lives: `pid` and `title` are its own, be it the isolate or something that was started
    there, and `reason` says why. Its task stays running, and another isolate has its place, until it is gone.
    """

    type: ClassVar[WorkerEventType] = WorkerEventType.ISOLATE
    action: str
    pid: int
    reason: str | None = None
    traceback: str = ""
    title: str = ""


AnyEvent = (
    StartedEvent
    | HeartbeatEvent
    | ProgressEvent
    | TimeoutEvent
    | CompletedEvent
    | RetriedEvent
    | FailedEvent
    | RevokedEvent
    | ErrorEvent
    | IsolateEvent
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyEvent)


def encode(event: Event) -> bytes:
    return _encoder.encode(event)


def decode(body: bytes) -> AnyEvent:
    """Raises msgspec.MsgspecError on anything else."""
    event: AnyEvent = _decoder.decode(body)
    return event
