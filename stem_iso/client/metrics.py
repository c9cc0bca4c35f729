"""Metrics as Prometheus' text: the names, labels and buckets that a worker and the dashboard have in common (extra `metrics`).

    a worker's counters ──┐
    the broker's counts ──┴──> families ── exposition ──> bytes        each caller gives what it knows; nothing is global

Rules
 1. What is known to be possible is there from the start, as 0: Prometheus' `increase` misses the first one of a series that comes with it.
 2. Buckets are those of `task.histogram`, every eighth, so that no count is split. All processes have the same, and can be added up.
 3. Sums are made of the bins, right to 5 %.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from stem_iso.task.histogram import upper_end, value_of

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from stem_iso.brokers.operations import QueueState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OUTCOMES = {"succeeded": "succeeded", "failed": "failed", "retried": "retried", "cancelled": "revoked"}  # label -> word that is counted
KILL_REASONS = ("hard", "silence", "memory", "operator", "revoked", "shutdown", "lease-lost", "displaced")
ISOLATE_STATES = ("starting", "spare", "busy", "shared")
REST, LONGEST_REST = 100, 5.0  # times as long as a text took to make; seconds
OF_TASK = ("queue", "task")

# Bins whose upper ends are buckets: 1 ms to 26 h, each 2.1 times the one before; what dies late, 0.5 ms to 45 s, each 1.5 times.
TASK_BUCKETS = tuple(range(-72, 121, 8))
LATE_BUCKETS = tuple(range(-80, 41, 4))


class TaskRow(Protocol):
    """Words of `operations.COUNTED` and histograms of one task in one queue."""

    @property
    def counts(self) -> Mapping[str, int]: ...
    @property
    def wait(self) -> Mapping[int, int]: ...
    @property
    def run(self) -> Mapping[int, int]: ...


class PacedText:
    """The text that `make` makes, by one thread at a time and for a hundredth of the time: who asks sooner gets the last one again.

    Metrics are asked for by machines, some of them too often, and those who work need the interpreter too.
    """

    def __init__(self, make: Callable[[], bytes], clock: Callable[[], float] = monotonic) -> None:
        self._make, self._clock = make, clock
        self._lock = threading.Lock()  # guards both below
        self._text, self._stale_at = b"", -inf

    def text(self) -> bytes:
        with self._lock:
            began = self._clock()
            if began >= self._stale_at:
                self._text = self._make()
                ended = self._clock()
                self._stale_at = ended + min(REST * (ended - began), LONGEST_REST)
            return self._text


def exposition(families: Callable[[], Iterable[Metric]]) -> bytes:
    """The text of these families."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def describe(self) -> Iterable[Metric]:
        return ()  # else the registry would collect once more to learn the names

    def collect(self) -> Iterable[Metric]:
        return self._families()


# -- families ------------------------------------------------------------------------------------------------------------------------------


def of_tasks(rows: Mapping[tuple[str, str], TaskRow]) -> Iterator[Metric]:
    """Ends, waits and runs, by (queue, task)."""
    tasks = CounterMetricFamily("stem_iso_tasks", "Attempts that ended, by what became of the task.", labels=(*OF_TASK, "outcome"))
    wait = HistogramMetricFamily("stem_iso_task_wait_seconds", "From when a task was ready until its attempt began.", labels=OF_TASK)
    run = HistogramMetricFamily("stem_iso_task_run_seconds", "From when an attempt began until it ended.", labels=OF_TASK)
    for of_task, row in sorted(rows.items()):
        for outcome, word in OUTCOMES.items():
            tasks.add_metric((*of_task, outcome), row.counts.get(word, 0))
        wait.add_metric(of_task, *buckets(row.wait, TASK_BUCKETS))
        run.add_metric(of_task, *buckets(row.run, TASK_BUCKETS))
    yield from (tasks, wait, run)


def of_kills(kills: Mapping[str, int], known: Sequence[str] = KILL_REASONS) -> Iterator[Metric]:
    family = CounterMetricFamily("stem_iso_kills", "Processes that were killed with what ran in them, by reason.", labels=("reason",))
    for reason in dict.fromkeys((*known, *sorted(kills))):
        family.add_metric((reason,), kills.get(reason, 0))
    yield family


def of_late_kills(late: Mapping[int, int]) -> Iterator[Metric]:
    family = HistogramMetricFamily("stem_iso_kill_late_seconds", "From a hard limit, or the end of a silence, to the confirmed death.")
    family.add_metric((), *buckets(late, LATE_BUCKETS))
    yield family


def of_isolates(states: Mapping[str, int]) -> Iterator[Metric]:
    family = GaugeMetricFamily("stem_iso_isolates", "Processes that run tasks or stand ready for them.", labels=("state",))
    for state in dict.fromkeys((*ISOLATE_STATES, *sorted(states))):
        family.add_metric((state,), states.get(state, 0))
    yield family


def of_queues(queues: Iterable[QueueState]) -> Iterator[Metric]:
    """The age is 0 where nothing is ready: an autoscaler needs a figure to go back."""
    depth = GaugeMetricFamily("stem_iso_queue_depth", "Tasks in a queue.", labels=("queue", "state"))
    age = GaugeMetricFamily("stem_iso_queue_oldest_age_seconds", "How long the oldest ready task has been ready.", labels=("queue",))
    for queue in queues:
        for state, count in (("queued", queue.queued), ("delayed", queue.delayed), ("running", queue.running), ("dead", queue.dead)):
            depth.add_metric((queue.name, state), count)
        age.add_metric((queue.name,), queue.oldest_age or 0.0)
    yield from (depth, age)


def of_workers(living: int) -> Iterator[Metric]:
    yield GaugeMetricFamily("stem_iso_workers", "Workers that are alive.", value=living)


def of_broker(up: bool) -> Iterator[Metric]:
    yield GaugeMetricFamily("stem_iso_broker_up", "1 while the broker answers, else 0.", value=int(up))


def buckets(bins: Mapping[int, int], edges: Sequence[int]) -> tuple[list[tuple[str, float]], float]:
    """Bins as buckets that end at the upper ends of `edges`, each with all that is below it; and the sum, seconds."""
    counts = [0] * (len(edges) + 1)
    first, step = edges[0], edges[1] - edges[0]
    for bin, count in bins.items():
        counts[min(max(0, -((first - bin) // step)), len(edges))] += count
    found, passed = [], 0
    for le, count in zip(_names(edges), counts, strict=True):
        passed += count
        found.append((le, float(passed)))
    return found, sum(value_of(bin) * count for bin, count in bins.items())


def _names(edges: Sequence[int]) -> list[str]:
    """Four digits: what is cut off is a hundredth of what a bin blurs."""
    ends = [upper_end(edge) for edge in edges]
    return [*(f"{end:.4g}" if end < 1000 else f"{end:.0f}" for end in ends), "+Inf"]
