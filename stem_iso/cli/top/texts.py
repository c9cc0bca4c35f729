"""Texts of the full screen: what a row is in full, what the broker's absence means, which keys there are. Pure.

All of it is plain text of safe characters; `folded` breaks it into lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stem_iso.brokers.records import ANSWERS_WITHIN, IsolateInfo
from stem_iso.cli.table import cut, width_of
from stem_iso.cli.top import figures
from stem_iso.cli.top.actions import actions_for
from stem_iso.cli.top.grid import Span, Tone
from stem_iso.cli.top.panes import ISOLATES, LATE, ORDERS, QUEUES
from stem_iso.cli.top.snapshot import Away, Failure, SeenWorker, Snapshot, Subject, TimeOut
from stem_iso.client.queue_stats import QueueStats
from stem_iso.printable import lines, one_line

SILENT = 3.0  # seconds without a word from the thread that reads, after which the broker is away although nothing said so
SHORTEST_PLACE = 12  # cells

HELP = f"""\
MOVE
  1 2 3 4   isolates, queues, time-outs, failures
  Tab       the next of these
  Up Down PgUp PgDn Home End
  Enter     everything about this row
  Esc       back; all rows again

LOOK
  /         filter: rows that hold each of these words
  s         order of isolates: {", ".join(ORDERS[ISOLATES])}
            order of queues: {", ".join(ORDERS[QUEUES])}
  i         the stack of this isolate, as it is now
  t         dark or light
  Ctrl-Z    put aside (fg brings it back)
  q Ctrl-C  quit

ACT, after a question
  k         kill this isolate
  x         revoke this task
  X         terminate it: kill it where it runs
  r         retry this failed task
  p         pause or resume this queue

ISOLATES
  spare     waits for a task
  busy      runs one
  past soft, past hard   has run longer than that limit allows
  shared    runs inline tasks, many at once
  running   of a task: its worker does not say where it runs
  unknown   its worker does not answer; this was its last word
  The bar is the time used, up to the hard limit; ┃ is the soft one.
  Memory is of the isolate and all that it started.

QUEUES
  paused    nothing new begins of it
  no worker something waits, and nobody who answers serves it
  late      the oldest has been ready for more than {figures.limit(LATE)}
  RATE      tasks that ended, over the last minute

A worker of which nothing was heard for {ANSWERS_WITHIN:g} s is not answering.
docs/top.md says what to do when a figure is bad.
"""


def folded(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells; what is longer goes on in the next, indented as its line."""
    found: list[str] = []
    for line in lines(text, "").expandtabs(4).split("\n"):
        found += _folded_line(line, max(8, width))
    return found


def _folded_line(line: str, width: int) -> Iterator[str]:
    indent = " " * min(len(line) - len(line.lstrip()), width // 2)
    while width_of(line) > width:
        head = cut(line, width)[:-1]
        space = head.rfind(" ")
        if space > len(indent) + width // 2:
            head = head[:space]
        yield head.rstrip()
        line = indent + line[len(head) :].lstrip()
    yield line


# -- one row in full -------------------------------------------------------------------------------------------------------------------


def details(subject: Subject, now: float) -> tuple[str, str]:
    """Title and text."""
    match subject.record:
        case SeenWorker() as seen:
            return f"Worker {one_line(seen.info.id)}", _fields(_of_worker(seen, now))
        case IsolateInfo() as isolate:
            return f"Isolate {isolate.pid or '-'}", _fields(_of_isolate(isolate, subject, now))
        case QueueStats() as queue:
            return f"Queue {one_line(queue.name)}", _fields(_of_queue(queue))
        case TimeOut() as found:
            return f"Time-out of {one_line(found.name)}", _fields(_of_time_out(found)) + "\n\n" + (found.stack or "no stack")
        case Failure() as found:
            return f"Failure of {one_line(found.name)}", _fields(_of_failure(found)) + _texts_of(found)
    return "Nothing", ""


def _fields(pairs: Iterable[tuple[str, object]]) -> str:
    return "\n".join(f"{name:<14}{one_line(str(value))}" for name, value in pairs if value not in (None, ""))


def _of_worker(seen: SeenWorker, now: float) -> Iterator[tuple[str, object]]:
    worker = seen.info
    yield "answers", "yes" if seen.answers else f"no, not for {figures.duration(seen.silent_for)}"
    yield "host", f"{worker.hostname}, pid {worker.pid}"
    yield "started", f"{figures.moment(worker.started_at)}, {figures.duration(now - worker.started_at)} ago"
    yield "queues", ", ".join(worker.queues)
    yield "busy", f"{len(worker.running)} of {worker.seats}" + (", takes nothing new (draining)" if worker.draining else "")
    yield "spares", worker.spares
    yield "cores", figures.cores(worker.cores)
    yield "broker", worker.broker


def _of_isolate(isolate: IsolateInfo, subject: Subject, now: float) -> Iterator[tuple[str, object]]:
    yield "worker", subject.worker_id
    yield "state", isolate.state
    yield "task", isolate.name
    yield "task id", isolate.task_id
    if isolate.started_at is not None:
        yield "began", f"{figures.moment(isolate.started_at)}, {figures.duration(now - isolate.started_at)} ago"
    yield "soft limit", None if isolate.soft_time_limit is None else figures.limit(isolate.soft_time_limit)
    yield "hard limit", None if isolate.hard_time_limit is None else figures.limit(isolate.hard_time_limit)
    yield "memory", None if isolate.memory is None else figures.size_against(isolate.memory, isolate.memory_limit)
    yield "cores", figures.cores(isolate.cores)


def _of_queue(queue: QueueStats) -> Iterator[tuple[str, object]]:
    yield "paused", "yes" if queue.paused else "no"
    yield "queued", queue.queued
    for priority, number in sorted(queue.by_priority.items(), reverse=True):
        yield f"  priority {priority}", number
    yield "oldest", None if queue.oldest_age is None else f"{figures.duration(queue.oldest_age)}"
    yield "running", queue.running
    yield "delayed", queue.delayed
    yield "dead", queue.dead
    yield "rate", figures.rate(queue.rate)
    yield "served by", ", ".join(queue.served_by) or "nobody"


def _of_time_out(found: TimeOut) -> Iterator[tuple[str, object]]:
    yield "when", figures.moment(found.at)
    yield "limit", found.level + ("" if found.limit is None else f", {figures.limit(found.limit)}")
    yield "task id", found.task_id
    yield "queue", found.queue
    yield "worker", found.worker_id
    yield "attempt", _attempt(found)


def _of_failure(found: Failure) -> Iterator[tuple[str, object]]:
    yield "when", figures.moment(found.at)
    yield "reason", found.reason
    yield "task id", found.task_id
    yield "queue", found.queue
    yield "attempt", _attempt(found)
    yield "error", found.error_type


def _texts_of(found: Failure) -> str:
    parts = [part.strip("\n") for part in (found.message, found.stack, found.traceback)]
    return "".join(f"\n\n{part}" for part in parts if part)


def _attempt(found: TimeOut | Failure) -> str:
    return f"{found.attempt + 1}" + (f" of run {found.run}" if found.run else "")


# -- the lines above and below ---------------------------------------------------------------------------------------------------------


def absence(away: Away | None, heard_at: float, now: float) -> Away | None:
    """The broker is away: it was said, or nothing was said for SILENT seconds."""
    if away is not None:
        return away
    return Away(heard_at, "no answer yet") if now - heard_at > SILENT else None


def banner(away: Away, snapshot: Snapshot | None, now: float) -> list[Span]:
    """In the place of the totals while the broker is away."""
    since = f"! The broker has not answered since {figures.clock(away.since)} ({figures.duration(now - away.since)})"
    seen = "" if snapshot is None else "; this is from then"
    return [Span(f"{since}{seen}. ", Tone.BAD), Span(one_line(away.why[:400]), Tone.DIM)]


def heading(snapshot: Snapshot | None, place: str, now: float, width: int, words: str) -> list[Span]:
    """The first line: what is looked at, the filter, the time. A long place is cut first, at its beginning."""
    name, notes = Span(" stem-iso top", Tone.STRONG), []
    if snapshot is not None and snapshot.note:
        notes.append(Span(f"  ! {one_line(snapshot.note)}", Tone.WARNING))
    if words:
        notes.append(Span(f"  filter: {one_line(words)}", Tone.WARNING))
    right = f"{figures.clock(now)} "
    room = width - width_of(right) - 1
    for_place = room - 2 - sum(width_of(span.text) for span in (name, *notes))
    left = [name, Span(f"  {_end_of(one_line(place), max(SHORTEST_PLACE, for_place))}", Tone.ACCENT), *notes]
    used = sum(width_of(span.text) for span in left)
    if used > room:
        last = left[-1]
        kept = max(0, width_of(last.text) - (used - room))
        left[-1] = Span(cut(last.text, kept) if kept else "", last.tone)
        used = sum(width_of(span.text) for span in left)
    return [*left, Span(" " * max(1, width - used - width_of(right))), Span(right, Tone.DIM)]


def _end_of(text: str, width: int) -> str:
    if width_of(text) <= width:
        return text
    while width_of(text) >= width:
        text = text[1:]
    return f"…{text}"


def hints(subject: Subject | None, filtered: bool, width: int) -> list[Span]:
    """The last line: what the keys do here, the most wanted first, as many as there is room for."""
    pairs = [(action.key, action.word) for action in actions_for(subject)]
    if subject is not None:
        pairs.append(("Enter", "more"))
    pairs += [("?", "help"), ("q", "quit"), *([("Esc", "all rows")] if filtered else []), ("/", "filter"), ("s", "order")]
    found, used = [], 0
    for key, word in pairs:
        used += len(key) + len(word) + 4
        if used > width:
            break
        found += [Span(f" {key}", Tone.ACCENT), Span(f" {word}  ")]
    return found
