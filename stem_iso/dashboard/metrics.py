"""Metrics of the whole broker, as Prometheus' text: `/metrics` of the dashboard. What a worker alone knows stands in its own.

    broker.queue_states, workers ──> as they stand            broker.counts ──> DayCounts ──> counters
    a broker that is away: stem_iso_broker_up 0, and the counters as they were read last

Counters count from midnight, UTC, and begin anew at 0 there, as after a restart: `rate` and `increase` understand that. The broker keeps a
day of minutes and no more. A counter that went on past that would have to live in one dashboard, and a fresh one would begin with another
figure: a day's worth that never happened, in every alert. This way all dashboards of a broker say the same, whenever they were started, and
what happened while none of them ran is not lost.

The broker does not know how late kills were, nor what operators and shutdowns killed. A time-out, or an end for memory, counts as its kill.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from stem_iso.client import metrics
from stem_iso.errors import BrokerUnavailable
from stem_iso.task import histogram

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from stem_iso.app import Stem
    from stem_iso.brokers.base import WorkerInfo
    from stem_iso.brokers.operations import QueueState, TaskCounts

CONTENT_TYPE = metrics.CONTENT_TYPE
DAY = 1440  # minutes
OPEN = 10  # minutes: what is older than these will not change; workers hand over within seconds, but after an outage
STEP = 60  # minutes that are read at once
KILLS = {"hard": "timed_out_hard", "silence": "timed_out_silence", "memory": "out_of_memory"}  # reason -> word that is counted


class DayTotals(msgspec.Struct):
    """Of one task in one queue."""

    counts: dict[str, int] = {}
    wait: dict[int, int] = {}
    run: dict[int, int] = {}

    def add(self, more: TaskCounts | DayTotals) -> None:
        for word, count in more.counts.items():
            self.counts[word] = self.counts.get(word, 0) + count
        histogram.add(self.wait, more.wait)
        histogram.add(self.run, more.run)


class DayCounts:
    """The counts since midnight, UTC. Minutes that can still change are read anew each time, the others once. Pure."""

    def __init__(self) -> None:
        self._midnight = -1
        self._closed: dict[tuple[str, str], DayTotals] = {}
        self._open: list[TaskCounts] = []
        self._first_open = 0

    def since(self, minute: int) -> int:
        """From which minute on the counts are to be read, where `minute` is now."""
        self._begin_day(minute)
        return self._first_open

    def put(self, rows: Iterable[TaskCounts], until: int, minute: int) -> None:
        """All rows from `since` to `until`, both included."""
        first_open = max(self._first_open, min(until + 1, minute - OPEN))
        self._open = []
        for row in rows:
            if row.minute < first_open:
                self._closed.setdefault((row.queue, row.name), DayTotals()).add(row)
            else:
                self._open.append(row)
        self._first_open = first_open

    def totals(self) -> dict[tuple[str, str], DayTotals]:
        totals = {key: DayTotals(dict(row.counts), dict(row.wait), dict(row.run)) for key, row in self._closed.items()}
        for row in self._open:
            totals.setdefault((row.queue, row.name), DayTotals()).add(row)
        return totals

    def _begin_day(self, minute: int) -> None:
        midnight = minute - minute % DAY
        if midnight != self._midnight:
            self._midnight = self._first_open = midnight
            self._closed, self._open = {}, []


class BrokerMetrics:
    """Of one application's broker, for one server. `text` is for any thread; who comes while another reads waits for that."""

    def __init__(self, app: Stem) -> None:
        self._app = app
        self._counts = DayCounts()  # owned by who is in `_make`
        self.text = metrics.PacedText(self._make).text

    def _make(self) -> bytes:
        try:
            queues, workers = self._read()
        except BrokerUnavailable:
            return metrics.exposition(lambda: self._families(None, ()))
        return metrics.exposition(lambda: self._families(queues, workers))

    def _read(self) -> tuple[list[QueueState], list[WorkerInfo]]:
        minute = int(self._app.clock() // 60)
        with self._app.broker_pool.borrow() as broker:
            while True:
                since = self._counts.since(minute)
                until = min(since + STEP - 1, minute)
                self._counts.put(broker.counts(since, until), until, minute)
                if until == minute:
                    return broker.queue_states(), broker.workers()

    def _families(self, queues: list[QueueState] | None, workers: Iterable[WorkerInfo]) -> Iterator[Metric]:
        """`queues` None: the broker is away."""
        yield from metrics.of_broker(queues is not None)
        totals = self._counts.totals()
        yield from metrics.of_tasks(totals)
        yield from metrics.of_kills(_kills(totals), tuple(KILLS))
        if queues is not None:
            living = [worker for worker in workers if worker.answers]
            yield from metrics.of_queues(queues)
            yield from metrics.of_workers(len(living))
            yield from metrics.of_isolates(_isolates(living))


def text(app: Stem) -> bytes:
    """All of it, read anew. Who asks again and again keeps a `BrokerMetrics`."""
    return BrokerMetrics(app).text()


def _kills(totals: Mapping[tuple[str, str], DayTotals]) -> dict[str, int]:
    return {reason: sum(row.counts.get(word, 0) for row in totals.values()) for reason, word in KILLS.items()}


def _isolates(workers: Iterable[WorkerInfo]) -> dict[str, int]:
    states = [isolate.state for worker in workers for isolate in worker.isolates]
    return {state: states.count(state) for state in set(states)}
