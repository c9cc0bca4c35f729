"""The log subscriber: turns events into `logging` records, and what handlers print into lines with their task's id.

    Event ──────────────> record of `stem_iso.worker`: level and sentence by type, fields in `extra` (task_id, task, queue, run, attempt)
    handler's output ───> the same logger, "[name id] text"

Rules
 1. The subscriber listens only to events that the logger's level lets through: at level WARNING a completed task costs nothing here.
 2. Records are made on the bus's dispatch thread: a log that blocks holds up nobody but other listeners. By command it does not block
    (`log_output`).
 3. The text log is a log of lines: what others wrote begins no line of its own, and no terminal obeys it (`printable`).
"""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Any

from stem_iso.events import (
    CompletedEvent,
    ErrorEvent,
    Event,
    FailedEvent,
    HeartbeatEvent,
    IsolateEvent,
    ProgressEvent,
    RetriedEvent,
    RevokedEvent,
    StartedEvent,
    TaskEvent,
    TimeoutEvent,
    WorkerEventType,
)
from stem_iso.printable import lines, one_line
from stem_iso.worker.attempt import Attempt
from stem_iso.worker.options import WorkerOptions
from stem_iso.worker.reporting.bus import Bus
from stem_iso.worker.reporting.log_output import LogWriter

log = logging.getLogger("stem_iso.worker")

LEVELS = {
    WorkerEventType.STARTED: logging.DEBUG,
    WorkerEventType.HEARTBEAT: logging.DEBUG,
    WorkerEventType.PROGRESS: logging.DEBUG,
    WorkerEventType.COMPLETED: logging.INFO,
    WorkerEventType.RETRIED: logging.WARNING,
    WorkerEventType.FAILED: logging.ERROR,
    WorkerEventType.REVOKED: logging.INFO,
    WorkerEventType.TIMEOUT: logging.WARNING,
    WorkerEventType.ISOLATE: logging.DEBUG,
    WorkerEventType.ERROR: logging.ERROR,
}


PRINTED = ("stdout", "stderr")  # the loggers of what a handler prints: a record for each line of it
LINE = 256  # bytes that a line costs beside its text, roughly


class Line:
    """Some lines of a handler's output, or a record of its log, on the way to the dispatch thread."""

    __slots__ = ("level", "logger", "task", "task_id", "text")

    def __init__(self, attempt: Attempt, level: int, logger: str, text: str) -> None:
        self.task_id, self.task = attempt.envelope.id, attempt.envelope.name
        self.level, self.logger, self.text = level, logger, text


class LogSubscriber:
    """Attached to a worker's bus for its whole life."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._started = False
        self._lost: dict[str, tuple[Attempt, int]] = {}  # by task: lines for which there was no room, not reported yet

    def started(self, options: WorkerOptions, broker: str) -> None:
        self._started = True
        cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
        queues = ", ".join(options.queues)
        facts = (options.id, broker, queues, options.seats, options.spares, cores)
        log.info("worker %s: broker %s, queues %s, %d seats, %d spares, cores %s", *facts)
        for type, level in LEVELS.items():
            if log.isEnabledFor(level) or type is WorkerEventType.ISOLATE:
                self._bus.on(type, self._event)
        self._bus.start()

    def stopped(self) -> None:
        if self._started:
            self._bus.post(log.info, "worker stopped", LINE)  # the consumer's thread never waits for a log

    def output(self, attempt: Attempt, level: int, logger: str, text: str) -> None:
        """Any thread; never blocks."""
        if not log.isEnabledFor(level):
            return
        lines = text.count("\n") + 1 if logger in PRINTED else 1
        if self._bus.post(_line, Line(attempt, level, logger, text), len(text) + lines * LINE):
            while self._lost:
                self._tell_lost(*self._lost.popitem()[1])
        else:
            id = attempt.envelope.id
            self._lost[id] = attempt, self._lost.get(id, (attempt, 0))[1] + lines

    def _tell_lost(self, attempt: Attempt, lines: int) -> None:
        text = f"{lines} lines of output dropped: the log is slower than the tasks"
        self._bus.post(_line, Line(attempt, logging.WARNING, "stem_iso", text), len(text) + LINE)

    def _event(self, event: Event) -> None:
        level = _level_of_isolate(event) if isinstance(event, IsolateEvent) else LEVELS[event.type]
        if log.isEnabledFor(level):
            log.log(level, "%s", sentence(event), extra=_fields(event))


def _level_of_isolate(event: IsolateEvent) -> int:
    if event.traceback:
        return logging.ERROR
    return logging.WARNING if event.action == "stuck" else LEVELS[event.type]


def _line(line: Line) -> None:
    fields = {"task_id": line.task_id, "task": line.task, "source": line.logger}
    for text in line.text.split("\n") if line.logger in PRINTED else (line.text,):
        log.log(line.level, "[%s %s] %s", one_line(line.task), one_line(line.task_id), text, extra=fields)


def _fields(event: Event) -> dict[str, Any]:
    fields: dict[str, Any] = {"event": event.type.value}
    if isinstance(event, TaskEvent | ErrorEvent) and event.task_id is not None:
        fields |= {"task_id": event.task_id, "task": event.name, "queue": event.queue, "run": event.run, "attempt": event.attempt}
    return fields


def sentence(event: Event) -> str:
    """What happened, for people. A stack or a traceback follows on lines of its own."""
    if isinstance(event, IsolateEvent) and event.action == "stuck":
        named = f" ({event.title})" if event.title else ""
        return f"process {event.pid}{named} is stuck: {event.reason}; its task stays running until it is gone"
    if isinstance(event, IsolateEvent):
        return f"isolate {event.pid} {event.action}" + (f" ({event.reason})" if event.reason else "") + _below(event.traceback)
    if isinstance(event, ErrorEvent):
        about = f"{one_line(event.name or '')} {one_line(event.task_id)}: " if event.task_id else ""
        return f"{about}{event.message}" + _below(event.traceback)
    if isinstance(event, TaskEvent):
        return f"{one_line(event.name)} {one_line(event.task_id)} {_of_task(event)}"
    return event.type.value


def _of_task(event: TaskEvent) -> str:
    match event:
        case StartedEvent():
            return f"started (run {event.run}, attempt {event.attempt})"
        case CompletedEvent():
            return f"completed in {event.elapsed:.3f} s"
        case RetriedEvent():
            return f"attempt {event.attempt} ended ({event.reason}); the next is due in {event.delay:.1f} s" + _error(event.error)
        case FailedEvent():
            return f"failed ({event.reason})" + _error(event.error)
        case RevokedEvent():
            return f"cancelled ({event.reason})"
        case TimeoutEvent(silent=True):
            return f"was silent for {event.limit:g} s (heartbeat_timeout), ended after {event.elapsed:.3f} s" + _below(event.stack)
        case TimeoutEvent():
            return f"reached its {event.level} time limit of {event.limit:g} s after {event.elapsed:.3f} s" + _below(event.stack)
        case ProgressEvent():
            return f"progress {event.percent:g} %"
        case HeartbeatEvent():
            return "heartbeat"
        case _:
            return event.type.value


def _error(error: Any) -> str:
    if error is None:
        return ""
    return f": {error.type}: {error.message}" + _below(error.traceback or error.stack)


def _below(text: str) -> str:
    return f"\n{text.rstrip()}" if text else ""


# -- for the command -------------------------------------------------------------------------------------------------------------------

EXTRA = ("event", "task_id", "task", "queue", "run", "attempt", "source")


class TextFormatter(logging.Formatter):
    """`2026-11-24 15:04:05.678 INFO  sentence`; further lines of one record are indented."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        text = f"{at}.{int(record.msecs):03d} {record.levelname:<7} {record.getMessage()}"
        return lines(f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (ISO 8601, UTC), level, logger, message, and the task's fields."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {"time": f"{at}.{int(record.msecs):03d}Z", "level": record.levelname.lower(), "logger": record.name}
        fields |= {"message": record.getMessage()}
        fields |= {name: getattr(record, name) for name in EXTRA if hasattr(record, name)}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def configure_logging(level: str, format: str) -> LogWriter:
    """Log to stderr, as the command does. `level` as in `config.LOG_LEVELS`, `format` "text" or "json"."""
    outlet = LogWriter()
    outlet.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[outlet], force=True)
    return outlet
