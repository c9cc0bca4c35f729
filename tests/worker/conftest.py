"""Fixtures of the worker's tests: an application, a worker, and a listener to its events."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stem_iso import Stem, Worker, WorkerEventType
from stem_iso.events import Event
from stem_iso.isolate.keeper import process_tree


class EventRecorder:
    """Records every event of a worker, and waits for the one that a test is about."""

    def __init__(self, worker: Worker) -> None:
        self.events: list[Event] = []
        self._at: list[float] = []
        self._changed = threading.Condition()
        worker.on(None, self._on_event)

    def _on_event(self, event: Event) -> None:
        with self._changed:
            self._at.append(time.monotonic())
            self.events.append(event)
            self._changed.notify_all()

    def of(self, type: WorkerEventType, task_id: str | None = None) -> list[Any]:
        return [event for event in self.events if event.type is type and task_id in (None, getattr(event, "task_id", None))]

    def wait(self, type: WorkerEventType, task_id: str | None = None, count: int = 1, within: float = 30.0) -> Any:
        """The `count`-th event of that type (and task)."""
        deadline = time.monotonic() + within
        with self._changed:
            while len(found := self.of(type, task_id)) < count:
                left = deadline - time.monotonic()
                assert left > 0, f"no {type.name} #{count} in {within} s; heard {[each.type.name for each in self.events]}"
                self._changed.wait(left)
        return found[count - 1]

    def first_at(self, task_id: str) -> float:
        """When the first event of that task came (monotonic)."""
        return next(at for at, event in zip(self._at, self.events, strict=False) if getattr(event, "task_id", None) == task_id)

    def history(self, task_id: str) -> list[str]:
        """What happened to one task, in order."""
        return [event.type.value for event in self.events if getattr(event, "task_id", None) == task_id]


Begin = Callable[..., tuple[Worker, EventRecorder]]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Stem]:
    app = Stem(broker=f"sqlite:///{tmp_path}/jobs.db", claim_interval=0.1)
    yield app
    app.close()


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Start workers that are stopped at once at the end of the test, whatever happened."""
    workers: list[Worker] = []

    def begin(app: Stem, **options: Any) -> tuple[Worker, EventRecorder]:
        options = {"concurrency": 1, "spares": 0, **options}
        worker = Worker(app, **options)
        recorder = EventRecorder(worker)
        worker.start()
        workers.append(worker)
        return worker, recorder

    yield begin
    for worker in workers:
        worker.stop(at_once=True)
    for worker in workers:
        worker.join(30)


class QuickRetries:
    """At once: for incidents that are not about delays."""

    def next_delay(self, attempt: int, error: object) -> float:
        return 0.0


def alive(pid: int) -> bool:
    """Whether it still runs; a zombie does not."""
    return not process_tree.is_dead(pid)


def steal(app: Stem, task_id: str) -> None:
    """Give the delivery to a worker that is not there, as a reclaim and another's fetch would."""
    with closing(sqlite3.connect(_path(app), timeout=10)) as database, database:
        changed = database.execute("UPDATE task SET boot = 'a-thief', sequence = 1 WHERE id = ?", (task_id,)).rowcount
    assert changed == 1


def lease_end(app: Stem, task_id: str) -> float:
    """On the broker's own clock."""
    with closing(sqlite3.connect(_path(app), timeout=10)) as database:
        return float(database.execute("SELECT at FROM task WHERE id = ?", (task_id,)).fetchone()[0])


def _path(app: Stem) -> str:
    return app.open_broker().url.removeprefix("sqlite:///")
