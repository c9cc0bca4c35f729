"""Snapshot: what was read of a broker in one moment. Times are wall-clock seconds.

A worker's own clock may differ from ours, and so may the store's. How long nothing was heard of it is therefore what the store says.
"""

from __future__ import annotations

import msgspec

from stem_iso.brokers import records
from stem_iso.brokers.records import IsolateInfo, WorkerInfo
from stem_iso.client.queue_stats import QueueStats


class SeenWorker(msgspec.Struct, frozen=True, kw_only=True):
    """`silent_for`: seconds since its last heartbeat."""

    info: WorkerInfo
    silent_for: float

    @property
    def answers(self) -> bool:
        return records.answers(self.silent_for)


class RunningTask(msgspec.Struct, frozen=True):
    """A task of which its worker says only that it runs: an inline one, or one of a worker that shows no isolates."""

    name: str
    queue: str
    started_at: float | None


class TimeOut(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that was reached. `level`: "soft", "hard" or "silence"."""

    at: float
    task_id: str
    name: str
    queue: str
    level: str
    limit: float | None
    stack: str
    worker_id: str = ""
    run: int = 0
    attempt: int = 0


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A task that ended as failed, and stands so."""

    at: float
    task_id: str
    name: str
    queue: str
    reason: str
    error_type: str = ""
    message: str = ""
    traceback: str = ""
    stack: str = ""
    run: int = 0
    attempt: int = 0


class Away(msgspec.Struct, frozen=True):
    """The broker does not answer, since then; what is shown is from before."""

    since: float
    why: str


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """`place`: the broker, for people, without a password. `note`: what else is to be said, such as why no events come."""

    at: float
    place: str
    workers: list[SeenWorker] = []
    running: dict[str, RunningTask] = {}  # by id, of those that no isolate names; not all of very many
    queues: list[QueueStats] = []
    queues_at: float = 0.0  # when they were read: it may be a while ago, where there are very many
    time_outs: list[TimeOut] = []
    failures: list[Failure] = []
    note: str = ""


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What a row is about, so far as the keys act on it. `record` is what the row was made of."""

    record: SeenWorker | IsolateInfo | QueueStats | TimeOut | Failure | None = None
    worker_id: str | None = None
    pid: int | None = None  # of an isolate
    task_id: str | None = None
    task: str | None = None
    queue: str | None = None


def unplaced(worker: WorkerInfo) -> list[str]:
    """Ids of the tasks that run in this worker, and in no isolate that it shows."""
    placed = {isolate.task_id for isolate in worker.isolates}
    return [id for id in worker.running if id not in placed]
