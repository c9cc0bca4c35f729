"""Background tasks that can really be killed.

Names are imported when they are first used, so that a producer loads no process pool, and an isolate no broker.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stem_iso.app import Stem as Stem
    from stem_iso.canvas import chain as chain
    from stem_iso.canvas import chord as chord
    from stem_iso.canvas import group as group
    from stem_iso.composed import CanvasHandle as CanvasHandle
    from stem_iso.composed import GroupHandle as GroupHandle
    from stem_iso.composed import GroupProgress as GroupProgress
    from stem_iso.errors import BrokerUnavailable as BrokerUnavailable
    from stem_iso.errors import InvalidOptions as InvalidOptions
    from stem_iso.errors import IsolateBootError as IsolateBootError
    from stem_iso.errors import IsolateCrashed as IsolateCrashed
    from stem_iso.errors import IsolateError as IsolateError
    from stem_iso.errors import LeaseLost as LeaseLost
    from stem_iso.errors import MemoryLimitExceeded as MemoryLimitExceeded
    from stem_iso.errors import Misfit as Misfit
    from stem_iso.errors import PayloadTooLarge as PayloadTooLarge
    from stem_iso.errors import RemoteError as RemoteError
    from stem_iso.errors import SoftTimeLimitExceeded as SoftTimeLimitExceeded
    from stem_iso.errors import StemError as StemError
    from stem_iso.errors import TaskCancelled as TaskCancelled
    from stem_iso.errors import TaskFailed as TaskFailed
    from stem_iso.errors import TimeoutException as TimeoutException
    from stem_iso.errors import UnknownResult as UnknownResult
    from stem_iso.errors import UnknownSchedule as UnknownSchedule
    from stem_iso.errors import UnknownTask as UnknownTask
    from stem_iso.errors import WaitRefused as WaitRefused
    from stem_iso.events import WorkerEventType as WorkerEventType
    from stem_iso.handle import TaskHandle as TaskHandle
    from stem_iso.isolate.limits import Limits as Limits
    from stem_iso.isolate.pool import IsolatePool as IsolatePool
    from stem_iso.middleware import Middleware as Middleware
    from stem_iso.outcome import TaskError as TaskError
    from stem_iso.parts import Chain as Chain
    from stem_iso.parts import Group as Group
    from stem_iso.parts import Link as Link
    from stem_iso.parts import Part as Part
    from stem_iso.scheduling import ScheduleHandle as ScheduleHandle
    from stem_iso.scheduling import ScheduleInfo as ScheduleInfo
    from stem_iso.task.context import TaskContext as TaskContext
    from stem_iso.task.context import current_context as current_context
    from stem_iso.task.envelope import Envelope as Envelope
    from stem_iso.task.handler import TaskHandler as TaskHandler
    from stem_iso.task.options import TaskOptions as TaskOptions
    from stem_iso.task.registry import TaskRegistry as TaskRegistry
    from stem_iso.task.retry import ExponentialJitterRetryStrategy as ExponentialJitterRetryStrategy
    from stem_iso.task.retry import RetryStrategy as RetryStrategy
    from stem_iso.task.simulated import local_context as local_context
    from stem_iso.task.status import TaskState as TaskState
    from stem_iso.task.status import TaskStatus as TaskStatus
    from stem_iso.tasks import AsyncTask as AsyncTask
    from stem_iso.tasks import Signature as Signature
    from stem_iso.tasks import Task as Task
    from stem_iso.worker.service import Worker as Worker

__version__ = "0.2.0"

_HOMES = {
    "AsyncTask": "tasks",
    "BrokerUnavailable": "errors",
    "CanvasHandle": "composed",
    "Chain": "parts",
    "Envelope": "task.envelope",
    "ExponentialJitterRetryStrategy": "task.retry",
    "Group": "parts",
    "GroupHandle": "composed",
    "GroupProgress": "composed",
    "InvalidOptions": "errors",
    "IsolateBootError": "errors",
    "IsolateCrashed": "errors",
    "IsolateError": "errors",
    "LeaseLost": "errors",
    "IsolatePool": "isolate.pool",
    "Limits": "isolate.limits",
    "MemoryLimitExceeded": "errors",
    "Link": "parts",
    "Misfit": "errors",
    "Part": "parts",
    "Middleware": "middleware",
    "PayloadTooLarge": "errors",
    "RemoteError": "errors",
    "RetryStrategy": "task.retry",
    "ScheduleHandle": "scheduling",
    "ScheduleInfo": "scheduling",
    "Signature": "tasks",
    "SoftTimeLimitExceeded": "errors",
    "Stem": "app",
    "StemError": "errors",
    "Task": "tasks",
    "TaskCancelled": "errors",
    "TaskContext": "task.context",
    "TaskError": "outcome",
    "TaskFailed": "errors",
    "TaskHandle": "handle",
    "TaskHandler": "task.handler",
    "TaskOptions": "task.options",
    "TaskRegistry": "task.registry",
    "TaskState": "task.status",
    "TaskStatus": "task.status",
    "TimeoutException": "errors",
    "UnknownResult": "errors",
    "UnknownSchedule": "errors",
    "UnknownTask": "errors",
    "WaitRefused": "errors",
    "Worker": "worker.service",
    "WorkerEventType": "events",
    "chain": "canvas",
    "chord": "canvas",
    "current_context": "task.context",
    "group": "canvas",
    "local_context": "task.simulated",
}

__all__ = [
    "AsyncTask",
    "BrokerUnavailable",
    "CanvasHandle",
    "Chain",
    "Envelope",
    "ExponentialJitterRetryStrategy",
    "Group",
    "GroupHandle",
    "GroupProgress",
    "InvalidOptions",
    "IsolateBootError",
    "IsolateCrashed",
    "IsolateError",
    "IsolatePool",
    "LeaseLost",
    "Limits",
    "Link",
    "MemoryLimitExceeded",
    "Middleware",
    "Misfit",
    "Part",
    "PayloadTooLarge",
    "RemoteError",
    "RetryStrategy",
    "ScheduleHandle",
    "ScheduleInfo",
    "Signature",
    "SoftTimeLimitExceeded",
    "Stem",
    "StemError",
    "Task",
    "TaskCancelled",
    "TaskContext",
    "TaskError",
    "TaskFailed",
    "TaskHandle",
    "TaskHandler",
    "TaskOptions",
    "TaskRegistry",
    "TaskState",
    "TaskStatus",
    "TimeoutException",
    "UnknownResult",
    "UnknownSchedule",
    "UnknownTask",
    "WaitRefused",
    "Worker",
    "WorkerEventType",
    "chain",
    "chord",
    "current_context",
    "group",
    "local_context",
]


if not TYPE_CHECKING:  # a checker that saw it would take any misspelt name for one of ours

    def __getattr__(name: str) -> Any:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'stem_iso' has no attribute {name!r}")
        value = getattr(import_module(f"stem_iso.{home}"), name)
        globals()[name] = value  # the next use finds it without asking
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
