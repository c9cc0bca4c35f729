"""Background tasks that can really be killed.

Names are imported when they are first used, so that a producer loads no process pool, and an isolate no broker. Type checkers and editors,
which do not run this, read `__init__.pyi`.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.2.0"

_NAMES = {  # home: what is public of it
    "app": ("Stem",),
    "client.canvas_result": ("CanvasHandle", "GroupHandle", "GroupProgress"),
    "errors": (
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
    "outcome": ("TaskError",),
    "client.canvas": ("Chain", "Group", "Link", "Part", "chain", "chord", "group"),
    "client.schedules": ("ScheduleHandle", "ScheduleInfo"),
    "task.context": ("TaskContext", "current_context"),
    "task.envelope": ("Envelope",),
    "task.handler": ("TaskHandler",),
    "task.options": ("TaskOptions",),
    "task.registry": ("TaskRegistry",),
    "task.retry_policy": ("ExponentialJitterRetryStrategy", "RetryStrategy"),
    "task.local_context": ("local_context",),
    "task.status": ("TaskState", "TaskStatus"),
    "client.task": ("AsyncTask", "Signature", "Task"),
    "worker.worker": ("Worker",),
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'stem_iso' has no attribute {name!r}")
    value = getattr(import_module(f"stem_iso.{home}"), name)
    globals()[name] = value  # the next use finds it without asking
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
