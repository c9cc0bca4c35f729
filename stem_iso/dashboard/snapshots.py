"""Snapshots of the broker: what each page shows and each route of the API answers, as plain values. `shapes` says what is in them.

    pages, api ── Snapshots.tasks(…) ──> app.list_tasks ──┐
                                         workers ─────────┴──> TaskRows

Rules
 1. Each method asks the broker and blocks meanwhile: the server calls it in a thread (`DashboardContext.read`). Any thread may.
 2. Nothing is shown as alive that is dead: a worker that does not answer (`WorkerInfo.answers`) is not `answering`, nor is what it runs.
    How long it was silent the store says, and so long as that is kept here it grows.
 3. What many look at is read once for all: workers and queues as often as their price allows (`paced_read`), counts by one reader in the
    background (`counts_reader`).

All raise BrokerUnavailable; what else they raise is said at each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import msgspec

from stem_iso.client import task_list
from stem_iso.client.result import datetime_of
from stem_iso.client.task_excerpt import LISTED
from stem_iso.client.task_filter import FilterFields, checked
from stem_iso.dashboard import failures as failure_groups
from stem_iso.dashboard.counts_reader import CountsReader
from stem_iso.dashboard.paced_read import PacedRead
from stem_iso.dashboard.shapes import (
    ActionView,
    FailureGroup,
    IsolateShown,
    LimitView,
    Overview,
    OverviewQueue,
    OverviewTotals,
    QueueView,
    ScheduleView,
    StatsView,
    TaskRows,
    TaskView,
    WorkerView,
)
from stem_iso.dashboard.task_view import task_row, task_view
from stem_iso.json_data import to_plain

if TYPE_CHECKING:
    from stem_iso.app import Stem
    from stem_iso.brokers.base import IsolateInfo, WorkerInfo
    from stem_iso.client.queue_stats import QueueStats
    from stem_iso.outcome import TaskStatus

LOOK = 0.12  # seconds that a page is sought; one of a rare text may be empty by then, and has a cursor
FAILED_MOST = 1000  # newest failed tasks that are grouped
FAILED_LOOK = 0.15  # seconds in which they are read; those that were found by then are grouped
PAGE = 250
QUEUES_REST = 4.0  # seconds: over a million waiting tasks of SQLite a look takes a tenth of one


class Snapshots:
    """Of one application, for all who look. `counts` is started and stopped by the server."""

    def __init__(self, app: Stem) -> None:
        self._app = app
        self.counts = CountsReader(app)
        self._workers = PacedRead(self._read_workers, oldest=0.0)  # an old value would make the living look dead
        self._queues = PacedRead(app.queue_stats, longest_rest=QUEUES_REST)
        self._schedules = PacedRead(lambda: app.schedules.infos(outcomes=True), oldest=0.0)
        self._failures = PacedRead(lambda: self._grouped({}))

    def forget(self) -> None:
        """Something was changed from here, so what is shown next is read anew."""
        self._workers.forget()
        self._queues.forget()
        self._schedules.forget()
        self._failures.forget()

    def _read_workers(self) -> tuple[list[WorkerInfo], float]:
        """With when they were asked for, so that time that passed since counts as silence."""
        asked_at = time.monotonic()
        with self._app.broker_pool.borrow() as broker:
            return broker.workers(), asked_at

    def _workers_now(self) -> list[WorkerInfo]:
        workers, asked_at = self._workers.value()
        return [_aged(worker, time.monotonic() - asked_at) for worker in workers]

    # -- overview ------------------------------------------------------------------------------------------------------------------

    def overview(self) -> Overview:
        now = self._app.clock()
        stats, workers = self._queues.value(), self._workers_now()
        with self._app.broker_pool.borrow() as broker:
            paused = broker.paused()
        counts = self.counts.read(int(now // 60))
        answering = [worker for worker in workers if worker.answers]
        none = counts.none
        return Overview(
            at=_moment(now) or "",
            broker=self._app.site.shown,
            ready=counts.ready,
            totals=_totals(stats, answering, len(workers) - len(answering)),
            hour=counts.hour,
            day=counts.day,
            span_hour=counts.spans.get("", none)[0],
            span_day=counts.spans.get("", none)[1],
            queues=[_overview_queue(each, answering, counts.spans.get(each.name, none)) for each in stats],
            paused_tasks=sorted(paused.tasks),
        )

    def stats(self, name: str | None, queue: str | None, minutes: int) -> StatsView:
        """Raises InvalidOptions."""
        return cast("StatsView", to_plain(self._app.task_stats(name, minutes=minutes, queue=queue)))

    # -- tasks ---------------------------------------------------------------------------------------------------------------------

    def tasks(self, which: FilterFields, limit: int = 100, cursor: str | None = None, newest_first: bool = True) -> TaskRows:
        """`which`: as of `app.list_tasks`; `parameters.task_filter` makes it of a query. Raises InvalidOptions."""
        now = self._app.clock()
        page = task_list.page(self._app, checked(which, now), limit, cursor, newest_first, LOOK, LISTED)
        alive = self._alive()
        return TaskRows(tasks=[task_row(task, now, alive, page.cut.get(task.id, [])) for task in page.tasks], cursor=page.cursor)

    def task(self, id: str) -> TaskView:
        """Raises UnknownResult."""
        now = self._app.clock()
        return task_view(self._app, id, now, self._alive(), self._isolate_of(id, now))

    def failures(self, which: FilterFields | None = None) -> list[FailureGroup]:
        """Of the newest 1,000 failed tasks, the largest group first; fewer where the store is slow. Raises InvalidOptions."""
        return self._grouped(which) if which else self._failures.value()

    def _grouped(self, which: FilterFields) -> list[FailureGroup]:
        chosen = checked({**which, "state": "failed"}, self._app.clock())
        found: list[TaskStatus] = []
        cursor: str | None = None
        stop_at = time.monotonic() + FAILED_LOOK
        while len(found) < FAILED_MOST and (left := stop_at - time.monotonic()) > 0:
            page = task_list.page(self._app, chosen, PAGE, cursor, True, left, LISTED)
            # Neither arguments nor results are shown here.
            found += [msgspec.structs.replace(task, args=None, result=None, meta={}) for task in page.tasks]
            cursor = page.cursor
            if cursor is None:
                break
        return failure_groups.grouped(found[:FAILED_MOST])

    # -- queues and workers --------------------------------------------------------------------------------------------------------

    def queues(self) -> list[QueueView]:
        """By name."""
        workers = self._workers_now()
        return [_queue_view(each, workers) for each in self._queues.value()]

    def workers(self) -> list[WorkerView]:
        """By id."""
        now = self._app.clock()
        return [_worker_view(each, now) for each in sorted(self._workers_now(), key=lambda worker: worker.id)]

    def _alive(self) -> Callable[[str | None], bool]:
        ids = {worker.id for worker in self._workers_now() if worker.answers}
        return ids.__contains__

    def _isolate_of(self, id: str, now: float) -> IsolateShown | None:
        for worker in self._workers_now():
            for isolate in worker.isolates:
                if isolate.task_id == id and worker.answers:
                    return _isolate_view(isolate, now)
        return None

    # -- the rest ------------------------------------------------------------------------------------------------------------------

    def schedules(self) -> list[ScheduleView]:
        """By name."""
        return [cast("ScheduleView", to_plain(info)) for info in self._schedules.value()]

    def limits(self) -> list[LimitView]:
        """By bucket, at most 1,000."""
        with self._app.broker_pool.borrow() as broker:
            return [cast("LimitView", msgspec.structs.asdict(state)) for state in broker.limit_states()]

    def actions(self, limit: int = 100) -> list[ActionView]:
        """Newest first. Raises InvalidOptions."""
        return [cast("ActionView", to_plain(action)) for action in self._app.actions(limit)]


def _aged(worker: WorkerInfo, seconds: float) -> WorkerInfo:
    return msgspec.structs.replace(worker, silent_for=worker.silent_for + seconds)


def _moment(seconds: float | None) -> str | None:
    moment = datetime_of(seconds)
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")  # as `as_dict()` has it


def _totals(stats: list[QueueStats], answering: list[WorkerInfo], silent: int) -> OverviewTotals:
    ages = [each.oldest_age for each in stats if each.oldest_age is not None]
    return OverviewTotals(
        queued=sum(each.queued for each in stats),
        delayed=sum(each.delayed for each in stats),
        running=sum(each.running for each in stats),
        dead=sum(each.dead for each in stats),
        rate=sum(each.rate for each in stats),
        oldest_age=max(ages, default=None),
        workers=len(answering),
        silent=silent,
        seats=sum(worker.seats for worker in answering),
        busy=sum(len(worker.running) for worker in answering),
    )


def _overview_queue(stats: QueueStats, answering: list[WorkerInfo], spans: tuple[Any, Any]) -> OverviewQueue:
    return OverviewQueue(
        name=stats.name,
        queued=stats.queued,
        delayed=stats.delayed,
        running=stats.running,
        dead=stats.dead,
        oldest_age=stats.oldest_age,
        paused=stats.paused,
        rate=stats.rate,
        served=sum(stats.name in worker.queues for worker in answering),
        hour=spans[0],
        day=spans[1],
    )


def _queue_view(stats: QueueStats, workers: list[WorkerInfo]) -> QueueView:
    """Who serves it is as of now: the rest may be some seconds older."""
    serving = {worker.id: worker.answers for worker in workers if stats.name in worker.queues}
    by_answer = {
        "served_by": sorted(id for id, answers in serving.items() if answers),
        "silent": sorted(id for id, answers in serving.items() if not answers),
    }
    return cast("QueueView", {**to_plain(stats), **by_answer})


def _worker_view(worker: WorkerInfo, now: float) -> WorkerView:
    return WorkerView(
        id=worker.id,
        hostname=worker.hostname,
        pid=worker.pid,
        queues=worker.queues,
        seats=worker.seats,
        spares=worker.spares,
        running=worker.running,
        cores=worker.cores,
        pinned=worker.pinned,
        started_at=_moment(worker.started_at),
        seen_at=_moment(worker.seen_at),
        draining=worker.draining,
        isolates=[_isolate_view(isolate, now) for isolate in worker.isolates],
        answering=worker.answers,
        seen_ago=worker.silent_for,
    )


def _isolate_view(isolate: IsolateInfo, now: float) -> IsolateShown:
    fields = msgspec.structs.asdict(isolate)
    elapsed = None if isolate.started_at is None else max(0.0, now - isolate.started_at)
    return cast("IsolateShown", {**fields, "started_at": _moment(isolate.started_at), "elapsed": elapsed})
