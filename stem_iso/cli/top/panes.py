"""Panes: a snapshot as columns and rows, and as the totals above them. Pure.

    Snapshot, now, Order ──> isolates   a heading for each worker, its isolates below it; or all isolates, the longest or the largest first
                             queues
                             time-outs  newest first
                             failures   newest first

The word in the column STATE says what is wrong, and its tone only repeats it. What a worker that does not answer has said of its isolates
is `unknown` now, and their times stand still at its last word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from stem_iso.brokers.records import IsolateInfo, WorkerInfo
from stem_iso.cli.top import figures
from stem_iso.cli.top.grid import Cell, Column, Pane, Row, Span, Tone, cell, search_text
from stem_iso.cli.top.snapshot import Failure, RunningTask, SeenWorker, Snapshot, Subject, TimeOut, unplaced
from stem_iso.client.queue_stats import QueueStats
from stem_iso.printable import one_line

LATE = 300.0  # seconds: the age of the oldest from which a queue is called late; the default of `stem-iso health --max-age`
NEAR, CLOSE = 0.8, 0.95  # shares of a limit
FRAME = re.compile(r'^\s*File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<name>.*)$')

ISOLATES, QUEUES, TIME_OUTS, FAILURES = "isolates", "queues", "time-outs", "failures"
NAMES = (ISOLATES, QUEUES, TIME_OUTS, FAILURES)
ORDERS = {ISOLATES: ("worker", "longest", "largest"), QUEUES: ("name", "oldest", "deepest"), TIME_OUTS: ("newest",), FAILURES: ("newest",)}


def pane(name: str, snapshot: Snapshot, now: float, order: str) -> Pane:
    made: Callable[[Snapshot, float, str], Pane] = _MAKERS[name]
    return made(snapshot, now, order)


# -- isolates --------------------------------------------------------------------------------------------------------------------------

_WORKER = Column("WORKER", 8, 24, rank=7)
_ISOLATE = (
    Column("PID", 5, right=True),
    Column("STATE", 9),
    Column("TASK", 12),
    Column("TIME", 6, right=True),
    Column("SOFT ┃ HARD", 11, 40, rank=2, stretch=True),
    Column("LIMITS", 8, rank=1),
    Column("MEMORY", 11, right=True),
    Column("OF LIMIT", 8, 20, rank=4, stretch=True),
    Column("CORES", 5, 12, rank=3),
    Column("TASK ID", 36, rank=6),
    Column("SINCE", 8, rank=5),
)


def _isolates(snapshot: Snapshot, now: float, order: str) -> Pane:
    rows: list[Row] = []
    grouped = order == "worker"
    columns = _ISOLATE if grouped else (*_ISOLATE, _WORKER)
    for seen in snapshot.workers:
        if grouped:
            rows.append(_worker_row(seen, now))
        rows += [each.row(seen, grouped) for each in _lines(seen, snapshot.running, now)]
    if not grouped:
        rows = [each.row(seen, False) for seen, each in sorted(_all_lines(snapshot, now), key=lambda pair: -pair[1].weight(order))]
    count = sum(row.heading is None for row in rows)
    return Pane(ISOLATES, "Isolates", columns, rows, count, "no workers", order)


def _all_lines(snapshot: Snapshot, now: float) -> Iterator[tuple[SeenWorker, _Line]]:
    return ((seen, each) for seen in snapshot.workers for each in _lines(seen, snapshot.running, now))


def _worker_row(seen: SeenWorker, now: float) -> Row:
    worker = seen.info
    spans = [Span(f"{one_line(worker.id)}  ", Tone.STRONG)]
    if not seen.answers:
        spans.append(Span(f"! not answering for {figures.duration(seen.silent_for)}  ", Tone.BAD))
    if worker.draining:
        spans.append(Span("draining  ", Tone.WARNING))
    busy = f"{len(worker.running)}/{worker.seats} busy"
    spans.append(Span(f"{busy}  {one_line(','.join(worker.queues))}  ", Tone.ACCENT if seen.answers else Tone.DIM))
    spares = f"  {worker.spares} spare{'s' if worker.spares != 1 else ''}" if worker.spares else ""
    rest = f"{one_line(worker.hostname)} pid {worker.pid}  up {figures.duration(now - worker.started_at)}{spares}"
    spans.append(Span(rest, Tone.DIM))
    subject = Subject(record=seen, worker_id=worker.id)
    return Row(("worker", worker.id), heading=tuple(spans), subject=subject, search=search_text(span.text for span in spans))


class _Line(NamedTuple):
    """An isolate, or a task that runs in none that is known; with the time that its worker's last word allows."""

    isolate: IsolateInfo
    state: str
    elapsed: float | None

    def weight(self, order: str) -> float:
        if order == "largest":
            return float(self.isolate.memory or -1)
        return -1.0 if self.elapsed is None else self.elapsed

    def row(self, seen: SeenWorker, grouped: bool) -> Row:
        isolate, worker_id = self.isolate, seen.info.id
        tone = _tone_of(self)
        dim = Tone.PLAIN if isolate.task_id else Tone.DIM
        cells = [
            cell(isolate.pid or "-", dim),
            cell(self.state, tone if isolate.task_id or self.state == "unknown" else Tone.DIM),
            cell(isolate.name or isolate.task_id or "-", Tone.STRONG if isolate.task_id else Tone.DIM),
            cell(figures.duration(self.elapsed), dim),
            _time_bar(self, tone),
            cell(_limits(isolate), Tone.DIM),
            cell(figures.size_against(isolate.memory, isolate.memory_limit), dim),
            _memory_bar(isolate),
            cell(figures.cores(isolate.cores), Tone.DIM),
            cell(isolate.task_id or "", Tone.DIM),
            cell("" if isolate.started_at is None else figures.clock(isolate.started_at), Tone.DIM),
        ]
        if not grouped:
            cells.append(cell(worker_id, Tone.DIM))
        subject = Subject(
            record=isolate, worker_id=worker_id, pid=isolate.pid or None, task_id=isolate.task_id, task=isolate.name, queue=None
        )
        words = search_text([worker_id, str(isolate.pid), self.state, isolate.name or "", isolate.task_id or ""])
        return Row(("isolate", worker_id, str(isolate.pid), isolate.task_id or ""), tuple(cells), subject=subject, search=words)


def _lines(seen: SeenWorker, running: Mapping[str, RunningTask], now: float) -> list[_Line]:
    """Those with a task first, the longest first; then the others."""
    heard_at = now if seen.answers else now - seen.silent_for
    isolates = [*seen.info.isolates, *(_unplaced(id, running.get(id), seen.info) for id in unplaced(seen.info))]
    found = []
    for isolate in isolates:
        elapsed = None if isolate.started_at is None else max(0.0, heard_at - isolate.started_at)
        found.append(_Line(isolate, _state(isolate, elapsed) if seen.answers else "unknown", elapsed))
    return sorted(found, key=lambda line: (line.isolate.task_id is None, line.elapsed is None, -(line.elapsed or 0.0), line.isolate.pid))


def _unplaced(id: str, task: RunningTask | None, worker: WorkerInfo) -> IsolateInfo:
    name, started_at = (None, None) if task is None else (task.name, task.started_at)
    return IsolateInfo(pid=0, state="running", task_id=id, name=name, started_at=started_at, cores=worker.pinned.get(id, []))


def _state(isolate: IsolateInfo, elapsed: float | None) -> str:
    if isolate.task_id is not None and elapsed is not None:
        if isolate.hard_time_limit is not None and elapsed > isolate.hard_time_limit:
            return "past hard"
        if isolate.soft_time_limit is not None and elapsed > isolate.soft_time_limit:
            return "past soft"
    return isolate.state


def _tone_of(line: _Line) -> Tone:
    if line.state in ("past hard", "unknown"):
        return Tone.BAD
    if line.state == "past soft" or _share(line.elapsed, line.isolate.hard_time_limit) >= NEAR:
        return Tone.WARNING
    return Tone.GOOD


def _share(used: float | None, limit: float | None) -> float:
    return used / limit if used is not None and limit else 0.0


def _time_bar(line: _Line, tone: Tone) -> Cell:
    """Up to the hard limit, with a mark at the soft one; up to the soft one where there is no other."""
    soft, hard = line.isolate.soft_time_limit, line.isolate.hard_time_limit
    whole = hard or soft
    if line.elapsed is None or not whole:
        return Cell("no limit" if line.isolate.pid and line.isolate.task_id else "", Tone.DIM)
    share = line.elapsed / whole
    return Cell(f"{share:.0%}", tone, share, soft / hard if soft and hard else None)


def _memory_bar(isolate: IsolateInfo) -> Cell:
    if isolate.memory is None or not isolate.memory_limit:
        return Cell()
    share = isolate.memory / isolate.memory_limit
    return Cell(f"{share:.0%}", Tone.BAD if share >= CLOSE else Tone.WARNING if share >= NEAR else Tone.GOOD, share)


def _limits(isolate: IsolateInfo) -> str:
    soft, hard = isolate.soft_time_limit, isolate.hard_time_limit
    return "" if soft is None and hard is None else f"{figures.limit(soft)}/{figures.limit(hard)}"


# -- queues ----------------------------------------------------------------------------------------------------------------------------

_QUEUE = (
    Column("QUEUE", 8, stretch=True),
    Column("STATE", 9),
    Column("QUEUED", 6, right=True),
    Column("OLDEST", 6, right=True),
    Column("RUNNING", 7, right=True),
    Column("DELAYED", 7, right=True, rank=3),
    Column("DEAD", 4, right=True, rank=1),
    Column("RATE", 7, right=True, rank=2),
    Column("WORKERS", 7, right=True, rank=4),
    Column("BY PRIORITY", 11, 30, rank=5),
)


def _queues(snapshot: Snapshot, now: float, order: str) -> Pane:
    found = snapshot.queues
    if order == "oldest":
        found = sorted(found, key=lambda queue: -(queue.oldest_age or -1.0))
    elif order == "deepest":
        found = sorted(found, key=lambda queue: -queue.queued)
    answering = {seen.info.id for seen in snapshot.workers if seen.answers}
    rows = [_queue_row(queue, now - snapshot.queues_at, answering) for queue in found]
    return Pane(QUEUES, "Queues", _QUEUE, rows, len(rows), "no queues", order)


def queue_state(queue: QueueStats, answering: set[str]) -> tuple[str, Tone]:
    """What is wrong, the worst first; "" where nothing is."""
    if queue.paused:
        return "paused", Tone.WARNING
    waits = queue.queued or queue.delayed
    if waits and not answering.intersection(queue.served_by):
        return "no worker", Tone.BAD
    if queue.oldest_age is not None and queue.oldest_age > LATE:
        return "late", Tone.WARNING
    return "", Tone.PLAIN


def _queue_row(queue: QueueStats, passed: float, answering: set[str]) -> Row:
    state, tone = queue_state(queue, answering)
    idle = not (queue.queued or queue.running or queue.delayed)
    plain = Tone.DIM if idle else Tone.PLAIN
    oldest = None if queue.oldest_age is None else queue.oldest_age + passed
    priorities = " ".join(f"{priority}:{figures.count(number)}" for priority, number in sorted(queue.by_priority.items(), reverse=True))
    cells = (
        cell(queue.name, Tone.DIM if idle else Tone.STRONG),
        cell(state or ("idle" if idle else "ok"), tone if state else plain),
        cell(figures.count(queue.queued), plain),
        cell(figures.duration(oldest), tone if state == "late" else plain),
        cell(figures.count(queue.running), plain),
        cell(figures.count(queue.delayed), plain),
        cell(figures.count(queue.dead), Tone.BAD if queue.dead else Tone.DIM),
        cell(figures.rate(queue.rate), plain),
        cell(len(answering.intersection(queue.served_by)), plain),
        cell(priorities, Tone.DIM),
    )
    subject = Subject(record=queue, queue=queue.name)
    return Row(("queue", queue.name), cells, subject=subject, search=search_text([queue.name, state]))


# -- time-outs and failures ------------------------------------------------------------------------------------------------------------

_TIME_OUT = (
    Column("WHEN", 8),
    Column("LIMIT", 11),
    Column("TASK", 10, 40),
    Column("STUCK AT", 16, stretch=True),
    Column("QUEUE", 6, 16, rank=1),
    Column("WORKER", 8, 24, rank=2),
    Column("TASK ID", 36, rank=3),
)
_FAILURE = (
    Column("WHEN", 8),
    Column("TASK", 14, 40),
    Column("REASON", 8, 21, rank=1),
    Column("ERROR", 22, stretch=True),
    Column("TRY", 3, right=True, rank=3),
    Column("QUEUE", 6, 16, rank=2),
    Column("TASK ID", 36, rank=4),
)


def _time_outs(snapshot: Snapshot, now: float, order: str) -> Pane:
    rows = [_time_out_row(each) for each in snapshot.time_outs]
    return Pane(TIME_OUTS, "Time-outs", _TIME_OUT, rows, len(rows), "no time-outs", order)


def _time_out_row(found: TimeOut) -> Row:
    limit = found.level if found.limit is None else f"{found.level} {figures.limit(found.limit)}"
    cells = (
        cell(figures.clock(found.at), Tone.DIM),
        cell(limit, Tone.WARNING if found.level == "soft" else Tone.BAD),
        cell(found.name, Tone.STRONG),
        cell(where(found.stack)),
        cell(found.queue, Tone.DIM),
        cell(found.worker_id, Tone.DIM),
        cell(found.task_id, Tone.DIM),
    )
    subject = Subject(record=found, worker_id=found.worker_id, task_id=found.task_id, task=found.name, queue=found.queue)
    words = search_text([found.name, limit, where(found.stack), found.queue, found.worker_id, found.task_id])
    return Row(("time-out", found.task_id, str(found.run), str(found.attempt)), cells, subject=subject, search=words)


def _failures(snapshot: Snapshot, now: float, order: str) -> Pane:
    rows = [_failure_row(each) for each in snapshot.failures]
    return Pane(FAILURES, "Failures", _FAILURE, rows, len(rows), "no failures", order)


def _failure_row(found: Failure) -> Row:
    kind = found.error_type.rpartition(".")[2]
    error = ": ".join(part for part in (kind, found.message.strip()) if part)
    cells = (
        cell(figures.clock(found.at), Tone.DIM),
        cell(found.name, Tone.STRONG),
        cell(found.reason, Tone.BAD),
        cell(error),
        cell(found.attempt + 1, Tone.DIM),
        cell(found.queue, Tone.DIM),
        cell(found.task_id, Tone.DIM),
    )
    subject = Subject(record=found, task_id=found.task_id, task=found.name, queue=found.queue)
    words = search_text([found.name, found.reason, error, found.queue, found.task_id])
    return Row(("failure", found.task_id), cells, subject=subject, search=words)


def where(stack: str) -> str:
    """The innermost frame: `jobs.py:8 in spin`; "" of no stack."""
    for line in reversed(stack.splitlines()):
        if frame := FRAME.match(line):
            return f"{frame['file'].rpartition('/')[2]}:{frame['line']} in {frame['name']}"
    return ""


_MAKERS: dict[str, Callable[[Snapshot, float, str], Pane]] = {
    ISOLATES: _isolates,
    QUEUES: _queues,
    TIME_OUTS: _time_outs,
    FAILURES: _failures,
}


# -- totals ----------------------------------------------------------------------------------------------------------------------------


def totals(snapshot: Snapshot, now: float) -> list[Span]:
    """The parts of a line over all; what is not well says so in words."""
    workers, queues = snapshot.workers, snapshot.queues
    silent = sum(not seen.answers for seen in workers)
    busy, seats = (sum(count(seen) for seen in workers) for count in (lambda seen: len(seen.info.running), lambda seen: seen.info.seats))
    ages = [queue.oldest_age for queue in queues if queue.oldest_age is not None and not queue.paused]
    oldest = max(ages) + now - snapshot.queues_at if ages else None
    dead, paused = sum(queue.dead for queue in queues), sum(queue.paused for queue in queues)
    parts = [Span(f"{_many(len(workers), 'worker')}", Tone.STRONG if workers else Tone.BAD)]
    if silent:
        parts.append(Span(f"! {silent} not answering", Tone.BAD))
    parts.append(Span(f"{busy}/{seats} busy"))
    parts.append(Span(f"{figures.count(sum(queue.queued for queue in queues))} queued"))
    if oldest is not None:
        parts.append(Span(f"oldest {figures.duration(oldest)}", Tone.WARNING if oldest > LATE else Tone.PLAIN))
    if done := sum(queue.rate for queue in queues):
        parts.append(Span(f"{figures.rate(done)} done"))
    if paused:
        parts.append(Span(f"{_many(paused, 'queue')} paused", Tone.WARNING))
    if dead:
        parts.append(Span(f"{figures.count(dead)} dead", Tone.BAD))
    return parts


def _many(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
