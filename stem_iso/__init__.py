"""Background tasks that can really be killed.

Names are imported when they are first used, so that a producer loads no process pool, and an isolate no broker. Type checkers and editors,
which do not run this, read `__init__.pyi`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

__version__ = "0.2.0"

_NAMES = {  # home: what is public of it
    "app": ("Stem",),
    "brokers.base": ("Broker",),
    "client.action_log": ("ActionInfo",),
    "client.bulk": ("BulkResult",),
    "client.queue_stats": ("QueueStats",),
    "client.task_list": ("TaskPage",),
    "client.task_stats": ("Quantiles", "StatsBucket", "TaskStats"),
    "client.worker_control": ("Acknowledged",),
    "client.canvas_result": ("CanvasHandle", "GroupHandle", "GroupProgress"),
    "errors": (
        "ActionRefused",
        "BrokerUnavailable",
        "InvalidOptions",
        "IsolateBootError",
        "IsolateCrashed",
        "IsolateError",
        "LeaseLost",
        "MemoryLimitExceeded",
        "Misfit",
        "PayloadTooLarge",
        "RemoteError",
        "RetryRefused",
        "SoftTimeLimitExceeded",
        "StemError",
        "TaskCancelled",
        "TaskFailed",
        "TimeoutException",
        "UnknownResult",
        "UnknownSchedule",
        "UnknownTask",
        "WaitRefused",
    ),
    "events": ("WorkerEventType",),
    "client.result": ("TaskHandle",),
    "isolate.limits": ("Limits",),
    "isolate.pool.pool": ("IsolatePool",),
    "task.middleware": ("Middleware",),
    "outcome": ("TaskError", "TaskState", "TaskStatus"),
    "client.canvas": ("Chain", "Group", "Link", "Part", "chain", "chord", "group"),
    "client.schedules": ("ScheduleHandle", "ScheduleInfo"),
    "task.context": ("TaskContext", "current_context"),
    "task.envelope": ("Envelope",),
    "task.handler": ("TaskHandler", "TaskRegistry"),
    "task.options": ("TaskOptions",),
    "task.retry_policy": ("ExponentialJitterRetryStrategy", "RetryStrategy"),
    "task.local_context": ("local_context",),
    "client.task": ("AsyncTask", "Signature", "Task"),
    "worker.worker": ("Worker",),
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names}
_ON_LINUX = frozenset({"isolate.pool.pool", "worker.worker"})  # what runs tasks
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'stem_iso' has no attribute {name!r}")
    if home in _ON_LINUX and not find_spec("fcntl"):
        raise ImportError(f"stem_iso.{name} needs Linux 5.4 or later: this system can declare tasks, and enqueue them over redis://")
    value = getattr(import_module(f"stem_iso.{home}"), name)
    globals()[name] = value  # the next use finds it without asking
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
