"""Status of a task: its state, and everything that `handle.status()` shows.

    queued ──> running ──> succeeded | failed | cancelled        terminal: final within its run
      ^           │
      └─ retried <┘   (waiting for its next attempt)

Writes are ordered by (run, attempt); `replay` of a dead letter starts a new run at attempt 0.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from stem_iso.outcome import TaskError

# The reason of a task that waits for one of its limits.
RATE_LIMIT, CONCURRENCY_LIMIT = "rate-limit", "concurrency-limit"
LIMITS = frozenset({RATE_LIMIT, CONCURRENCY_LIMIT})


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


class TaskStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One task as it stands. Times are aware datetimes (UTC); `result` is set on success, `error` after a failed attempt."""

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
