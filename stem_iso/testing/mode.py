"""Test mode: an application whose tasks run in place, in memory, while a test looks at them.

    with test_mode(app) as tasks:
        checkout(basket)                           whatever it enqueues has run when this returns
        assert [task.name for task in tasks.ran] == ["mail.send"]
        tasks.advance(hours=3)                     the clock moves: delayed tasks run, schedules fire

Limits of time and memory, rates and isolation are not enforced here: `stem_worker`, or a `Worker` in the test, is for those.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, cast

from stem_iso.brokers.sqlite.clock import StoreClock
from stem_iso.brokers.sqlite.in_memory import MemoryStore
from stem_iso.client.broker_pool import BrokerConfig
from stem_iso.client.result import status_of
from stem_iso.outcome import TaskState, TaskStatus
from stem_iso.testing.in_place import Clock, InPlaceBroker, InPlaceWorker
from stem_iso.validation import duration

if TYPE_CHECKING:
    from stem_iso.app import Stem
    from stem_iso.brokers.base import Broker, StatusRecord


class MemorySite(BrokerConfig):
    """A broker in memory, with a store that begins empty."""

    def __init__(self, app: Stem, clock: Clock | None = None) -> None:
        super().__init__("memory://", app.site.overrides)
        self._store = MemoryStore() if clock is None else MemoryStore(StoreClock(wall=clock, lease=clock))


class InPlaceSite(MemorySite):
    """The same, with a worker that runs in place."""

    worker: InPlaceWorker

    def open(self) -> Broker:
        return cast("Broker", InPlaceBroker(super().open(), self.worker))

    def open_plain(self) -> Broker:
        return super().open()


class TasksInPlace:
    """What was enqueued in test mode, and what became of it, oldest first."""

    __test__ = False  # no class of tests, whatever pytest makes of names

    def __init__(self, app: Stem, worker: InPlaceWorker) -> None:
        self._app, self._worker = app, worker

    @property
    def enqueued(self) -> list[TaskStatus]:
        """All that was enqueued, by the test and by tasks, whatever became of it since."""
        return self._statuses([envelope.id for envelope in self._worker.sent])

    @property
    def ran(self) -> list[TaskStatus]:
        """Those that have ended, in the order of their ends."""
        return self._statuses(self._worker.ended)

    @property
    def failed(self) -> list[TaskStatus]:
        return [status for status in self.ran if status.state is TaskState.FAILED]

    def advance(self, by: timedelta | None = None, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Let so much time pass: what comes due on the way runs at its time, and what schedules fire. Raises as an enqueue does."""
        passed = by if by is not None else timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        self._worker.advance(duration("advance", passed, strict=False))

    def _statuses(self, ids: list[str]) -> list[TaskStatus]:
        return [self._status(record) for record in self._worker.records(ids)]

    def _status(self, record: StatusRecord) -> TaskStatus:
        return status_of(record, self._app.result_converter(record.name), self._app.shown_arguments(record.name, record.args))


@contextmanager
def test_mode(app: Stem, *, raise_errors: bool = True) -> Iterator[TasksInPlace]:  # noqa: PT028 - no test
    """Inside the block, whatever `app` enqueues runs in place, in memory; its own broker is not touched.

    A task that fails for good raises what its handler raised where it was enqueued, unless `raise_errors` is False: then it is in `failed`
    alone, and `handle.result()` raises TaskFailed as ever. Retries run at once. Everything ends with the block.
    """
    clock, before = Clock(), vars(app).get("clock")  # of a block around this one
    site = InPlaceSite(app, clock)
    with app.on_site(site):
        app.check()
        app.clock = clock
        site.worker = InPlaceWorker(app, site.open_plain, clock, raise_errors=raise_errors)
        try:
            yield TasksInPlace(app, site.worker)
        finally:
            del app.clock
            if before is not None:
                app.clock = before


test_mode.__test__ = False  # type: ignore[attr-defined]  # pytest takes a function of this name for a test
