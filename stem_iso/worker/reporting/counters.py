"""Counters of a worker: what happened to tasks, gathered in memory, for the broker's counts and for an exporter of metrics.

    events ── began, settled, count ──> fresh ── once a second ──┬──> pending, per minute ── take ──> broker.add_counts
                                          │                      │              ^──────── put_back ──────┘ refused
                                          └──> totals() <────────┴── totals since the start

Rules
 1. The consumer's thread counts, collects, takes and puts back, without a lock around what is done for each task. Any thread may ask for
    `totals()`: the lock is for that, and is taken once a second.
 2. What was counted is in exactly one of fresh, pending and taken; and once in the totals, whatever the broker does.
 3. While the broker is away pending grows by a row for each queue, task and minute. Past MOST_PENDING the oldest minutes are dropped; the
    totals keep them.
 4. Anybody may enqueue under any name. Past MOST_TASKS pairs of queue and name the name is OTHERS.

A count that the broker took, and whose answer was lost on the way, is put back, and so is counted twice.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import msgspec

from stem_iso.brokers.operations import TaskCounts
from stem_iso.task import histogram
from stem_iso.task.histogram import bin_of

MOST_PENDING = 20_000  # rows: an hour without the broker for 300 tasks; some 10 MiB
MOST_TASKS = 1_000  # pairs of queue and name
OTHERS = "*"

HARD, SILENCE, MEMORY, OPERATOR = "hard", "silence", "memory", "operator"  # reasons of kills; beside them the values of `StopReason`


class TaskFigures(msgspec.Struct):
    """Of one task in one queue: `counts` by the words of `operations.COUNTED`, those that are not zero and never `enqueued`; `wait` and
    `run` as of `task.histogram`, with as many entries as attempts have begun, and ended."""

    counts: dict[str, int] = {}
    wait: dict[int, int] = {}
    run: dict[int, int] = {}

    def add(self, more: TaskFigures | TaskCounts) -> None:
        for word, count in tuple(more.counts.items()):
            self.counts[word] = self.counts.get(word, 0) + count
        histogram.add(self.wait, dict(more.wait))  # copies, made in one step: the consumer may be counting meanwhile
        histogram.add(self.run, dict(more.run))


class Totals(msgspec.Struct, frozen=True):
    """All since the worker began: `tasks` by (queue, name); `kills` of processes with what ran in them, by reason (`hard`, `silence`,
    `memory`, `operator`, `revoked`, `shutdown`, `lease-lost`, `displaced`); `kill_late`: from a limit to the confirmed death, as of
    `task.histogram`. Histograms keep no sum: bins times `histogram.value_of` are right to 5 %."""

    tasks: dict[tuple[str, str], TaskFigures]
    kills: dict[str, int]
    kill_late: dict[int, int]


class Counters:
    """Owned by the consumer's thread, but for `totals`. Times are wall clock, durations seconds."""

    def __init__(self) -> None:
        self._fresh: dict[tuple[str, str, int], TaskFigures] = {}  # since the last `collect`
        self._pending: dict[tuple[str, str, int], TaskFigures] = {}  # for the broker
        self._totals: dict[tuple[str, str], TaskFigures] = {}  # without what is fresh
        self._kills: dict[str, int] = {}
        self._kill_late: dict[int, int] = {}
        self._minute, self._from, self._until = 0, 0.0, 0.0  # the minute that was counted in last, and its two ends
        self._lock = threading.Lock()  # held where fresh turns into totals, and where both are read

    # -- what happens --------------------------------------------------------------------------------------------------------------

    def began(self, queue: str, name: str, at: float, waited: float) -> None:
        """An attempt began at `at`, so long after it could have."""
        figures = self._of(queue, name, at)
        counts, wait, bin = figures.counts, figures.wait, bin_of(waited)
        counts["started"] = counts.get("started", 0) + 1
        wait[bin] = wait.get(bin, 0) + 1

    def settled(self, queue: str, name: str, at: float, word: str | None, elapsed: float | None) -> None:
        """An attempt ended that had run for `elapsed` (None: it had not begun, or its end was not its own), and `word` of COUNTED says
        what became of the task; None: nothing that is counted."""
        figures = self._of(queue, name, at)
        if elapsed is not None:
            run, bin = figures.run, bin_of(elapsed)
            run[bin] = run.get(bin, 0) + 1
        if word is not None:
            counts = figures.counts
            counts[word] = counts.get(word, 0) + 1

    def count(self, queue: str, name: str, at: float, word: str) -> None:
        """One more of this word of COUNTED."""
        counts = self._of(queue, name, at).counts
        counts[word] = counts.get(word, 0) + 1

    def killed(self, reason: str) -> None:
        self._kills[reason] = self._kills.get(reason, 0) + 1

    def died_late(self, seconds: float) -> None:
        """So long after its limit a call's process was dead."""
        bin = bin_of(seconds)
        self._kill_late[bin] = self._kill_late.get(bin, 0) + 1

    def _of(self, queue: str, name: str, at: float) -> TaskFigures:
        if not self._from <= at < self._until:
            self._minute = int(at // 60)
            self._from, self._until = self._minute * 60.0, self._minute * 60.0 + 60.0
        key = queue, name, self._minute
        figures = self._fresh.get(key)
        if figures is None:
            figures = self._fresh[key] = TaskFigures()
        return figures

    # -- for the broker ------------------------------------------------------------------------------------------------------------

    def take(self, most: int) -> list[TaskCounts]:
        """Up to so many rows, the oldest minutes first; they are the caller's to store, or to put back."""
        self._collect()
        rows = []
        for key in sorted(self._pending, key=_minute)[:most]:
            (queue, name, minute), figures = key, self._pending.pop(key)
            rows.append(TaskCounts(queue=queue, name=name, minute=minute, counts=figures.counts, wait=figures.wait, run=figures.run))
        return rows

    def put_back(self, rows: Sequence[TaskCounts]) -> None:
        """The broker did not take them."""
        for row in rows:
            self._pending.setdefault((row.queue, row.name, row.minute), TaskFigures()).add(row)
        self._drop_oldest()

    def _collect(self) -> None:
        with self._lock:
            fresh, self._fresh = self._fresh, {}
            for (queue, name, minute), figures in fresh.items():
                of_task = _bounded(queue, name, self._totals)
                self._totals.setdefault(of_task, TaskFigures()).add(figures)
                self._pending.setdefault((*of_task, minute), TaskFigures()).add(figures)
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        if (excess := len(self._pending) - MOST_PENDING) > 0:
            for key in sorted(self._pending, key=_minute)[:excess]:
                del self._pending[key]

    # -- for an exporter -----------------------------------------------------------------------------------------------------------

    def totals(self) -> Totals:
        """As of now, and the caller's own. From any thread."""
        with self._lock:
            tasks = {of_task: _copied(figures) for of_task, figures in self._totals.items()}
            for (queue, name, _), figures in tuple(self._fresh.items()):
                tasks.setdefault(_bounded(queue, name, tasks), TaskFigures()).add(figures)
            return Totals(tasks, dict(self._kills), dict(self._kill_late))


def _copied(figures: TaskFigures) -> TaskFigures:
    return TaskFigures(dict(figures.counts), dict(figures.wait), dict(figures.run))


def _bounded(queue: str, name: str, known: Mapping[tuple[str, str], TaskFigures]) -> tuple[str, str]:
    return (queue, name) if len(known) < MOST_TASKS or (queue, name) in known else (queue, OTHERS)


def _minute(key: tuple[str, str, int]) -> int:
    return key[2]
