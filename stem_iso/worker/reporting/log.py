"""The log subscriber: turns events into `logging` records, and what handlers print into lines with their task's id.

    Event ─────────────────────> record of `stem_iso.worker`: level and sentence by type, fields as attributes, a traceback as `exc_text`
    what a handler prints ─────> the same logger, "[name id] text", a record a line
    what a handler logs ───────> its own logger's name, level, extras and exception, "[name id] text" (`isolate.log_record`)

Rules
 1. The subscriber listens only to events that the logger's level lets through: at level WARNING a completed task costs nothing here.
 2. Records are made on the bus's dispatch thread: a log that blocks holds up nobody but other listeners. By command it does not block
    (`log_output`).
 3. At INFO a task has a line when it starts and one when it ends, by whatever end. What an attempt's limits did is a line more.
 4. A record bears the time of what it tells of, not that at which it is written: sorted by time, a task starts before what it logs.
 5. The text log is a log of lines: what others wrote begins no line of its own, and no terminal obeys it (`printable`).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
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
from stem_iso.isolate import log_record
from stem_iso.outcome import TaskError
from stem_iso.printable import lines, one_line
from stem_iso.worker.attempt import Attempt
from stem_iso.worker.reporting.bus import Bus
from stem_iso.worker.reporting.log_output import LogFile, LogWriter
from stem_iso.worker.reporting.start_report import Remark

log = logging.getLogger("stem_iso.worker")

LEVELS = {
    WorkerEventType.STARTED: logging.INFO,
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

    __slots__ = (
        "at",
        "attempt",
        "by_command",
        "details",
        "level",
        "logger",
        "name",
        "observed",
        "queue",
        "run",
        "task_id",
        "text",
        "worker",
    )

    def __init__(self, of: LogSubscriber, attempt: Attempt, level: int, logger: str, text: str, details: bytes) -> None:
        envelope = attempt.envelope
        self.task_id, self.name, self.queue, self.run, self.attempt = (
            *(envelope.id, envelope.name, envelope.queue),
            *(envelope.run, envelope.attempt),
        )
        self.worker, self.by_command, self.observed = of.worker_id, of.by_command, of.observed
        self.level, self.logger, self.text, self.details = level, logger, text, details
        self.at = time.time()  # of what is printed; a record of the handler's log has its own

    def fields(self) -> dict[str, Any]:
        found = {"task_id": self.task_id, "task_name": self.name, "queue": self.queue, "attempt": self.attempt}
        return found | {"worker": self.worker, "run": self.run}


class LogSubscriber:
    """Attached to a worker's bus for its whole life."""

    def __init__(self, bus: Bus, worker_id: str, *, by_command: bool) -> None:
        """`by_command`: the worker has a log of its own, and every isolate the application's handlers."""
        self._bus, self.worker_id, self.by_command = bus, worker_id, by_command
        self.observed = False  # what isolates log is in an error tracker before it comes here
        self._started = False
        self._lost: dict[str, tuple[Attempt, int]] = {}  # by task: lines for which there was no room, not reported yet

    def started(self, remarks: Iterable[Remark]) -> None:
        self._started = True
        for remark in remarks:
            log.log(remark.level, "%s", remark.text, extra={"worker": self.worker_id})
        self._listen()
        self._bus.start()

    def renew(self) -> None:
        """The level has changed. On the thread that makes the events, so that none is missed."""
        self._bus.off(self._event)
        self._listen()

    def _listen(self) -> None:
        for type, level in LEVELS.items():
            if log.isEnabledFor(level) or type is WorkerEventType.ISOLATE:
                self._bus.on(type, self._event)

    def observed_in_isolates(self) -> None:
        """An error tracker has what they log, from there: the records go to the handlers here, and past what is hooked into `logging`."""
        self.observed = True

    def stopped(self) -> None:
        if self._started:
            self._bus.post(self._stopped, "worker stopped", LINE)  # the consumer's thread never waits for a log

    def _stopped(self, text: str) -> None:
        log.info("%s", text, extra={"worker": self.worker_id})

    def output(self, attempt: Attempt, level: int, logger: str, text: str, details: bytes) -> None:
        """Any thread; never blocks."""
        if not log.isEnabledFor(level):
            return
        lines = text.count("\n") + 1 if logger in PRINTED else 1
        line = Line(self, attempt, level, logger, text, details)
        if self._bus.post(_line, line, len(text) + len(details) + lines * LINE):
            while self._lost:
                self._report_lost(*self._lost.popitem()[1])
        else:
            id = attempt.envelope.id
            self._lost[id] = attempt, self._lost.get(id, (attempt, 0))[1] + lines

    def _report_lost(self, attempt: Attempt, lines: int) -> None:
        text = f"{lines} lines of output dropped: the log is slower than the tasks"
        self._bus.post(_line, Line(self, attempt, logging.WARNING, "stem_iso", text, b""), len(text) + LINE)

    def _event(self, event: Event) -> None:
        level = _level_of_isolate(event) if isinstance(event, IsolateEvent) else LEVELS[event.type]
        if log.isEnabledFor(level):
            write(event.at, level, sentence(event), fields_of(event), below(event))


def write(at: float, level: int, text: str, fields: dict[str, Any], traceback: str = "") -> None:
    """A record of the worker's own, with these attributes. Its traceback is for every formatter: as `exc_text` it is a field and a text."""
    record = log.makeRecord(log.name, level, "", 0, text, (), None, extra=fields)
    log_record.date(record, at)
    record.exc_text = traceback.rstrip() or None
    log.handle(record)


def _level_of_isolate(event: IsolateEvent) -> int:
    if event.traceback:
        return logging.ERROR
    return logging.WARNING if event.action == "stuck" else LEVELS[event.type]


def _line(line: Line) -> None:
    printed = line.logger in PRINTED
    details = log_record.unpacked(line.details)
    fields = line.fields() | ({"source": line.logger} if printed else {})
    whose = f"[{one_line(line.name)} {one_line(line.task_id)}]"
    for text in line.text.split("\n") if printed else (line.text,):
        name = log.name if printed else line.logger
        record = log_record.restored(line.level, name, f"{whose} {text}", details, {**fields, "_plain": text})
        if not details.at:
            log_record.date(record, line.at)
        if line.observed and not printed and not details.handled and not line.by_command:
            _to_handlers(record)
        else:
            log_record.pass_on(log, record, not printed and (details.handled or line.by_command))


def _to_handlers(record: logging.LogRecord) -> None:
    """As `log.handle`, without what stands around `Logger.callHandlers` to see each record."""
    for handler in log_record.chain(log):
        if record.levelno >= handler.level:
            handler.handle(record)


def fields_of(event: Event) -> dict[str, Any]:
    """The attributes of an event's record. `duration_ms`: of the attempt that ended, where it had begun."""
    fields: dict[str, Any] = {"event": event.type.value, "worker": event.worker_id}
    if isinstance(event, TaskEvent | ErrorEvent) and event.task_id is not None:
        fields |= {"task_id": event.task_id, "task_name": event.name, "queue": event.queue, "run": event.run, "attempt": event.attempt}
    elapsed = getattr(event, "elapsed", None)
    if elapsed is not None:
        fields["duration_ms"] = round(elapsed * 1000, 3)
    if isinstance(event, RetriedEvent | FailedEvent) and event.error is not None:
        fields["error_type"] = event.error.type
    return fields


def sentence(event: Event) -> str:
    """What happened, for people."""
    if isinstance(event, IsolateEvent) and event.action == "stuck":
        named = f" ({event.title})" if event.title else ""
        return f"process {event.pid}{named} is stuck: {event.reason}; its task stays running until it is gone"
    if isinstance(event, IsolateEvent):
        return f"isolate {event.pid} {event.action}" + (f" ({event.reason})" if event.reason else "")
    if isinstance(event, ErrorEvent):
        about = f"{one_line(event.name or '')} {one_line(event.task_id)}: " if event.task_id else ""
        return f"{about}{event.message}"
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
            return f"was silent for {event.limit:g} s (heartbeat_timeout), ended after {event.elapsed:.3f} s"
        case TimeoutEvent():
            return f"reached its {event.level} time limit of {event.limit:g} s after {event.elapsed:.3f} s"
        case ProgressEvent():
            return f"progress {event.percent:g} %"
        case HeartbeatEvent():
            return "heartbeat"
        case _:
            return event.type.value


def _error(error: Any) -> str:
    if error is None:
        return ""
    return f": {error.type}: {error.message}"


def below(event: Event) -> str:
    """The stack or the traceback that belongs to it."""
    match event:
        case IsolateEvent() | ErrorEvent():
            return event.traceback
        case TimeoutEvent():
            return event.stack
        case RetriedEvent(error=TaskError() as error) | FailedEvent(error=TaskError() as error):
            return error.traceback or error.stack
        case _:
            return ""


# -- for the command -------------------------------------------------------------------------------------------------------------------

# The fields of a record that have a place of their own: in this order in JSON, and not shown behind a line of text.
OWN = (
    "task_id",
    "task_name",
    "queue",
    "attempt",
    "worker",
    "duration_ms",
    "error_type",
    "event",
    "run",
    "source",
    "isolate",
    "handled_there",
)
NOT_SHOWN = log_record.STANDARD.union(OWN)


def shown(extras: dict[str, Any]) -> str:
    """` name=value name=value`, as a line of text shows them."""
    return "".join(f" {one_line(name)}={_shown(value)}" for name, value in extras.items())


def _shown(value: Any) -> str:
    if isinstance(value, str) and value and value.isprintable() and not set(" \"'=") & set(value):
        return value
    return one_line(json.dumps(value, ensure_ascii=False))


class TextFormatter(logging.Formatter):
    """`2026-11-24 15:04:05.678 INFO    sentence`; further lines of one record are indented.

    Before the sentence stands the name of the logger, where that is not the worker's own; behind it each `extra`, as name=value.
    """

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        name = "" if record.name == log.name else f"{one_line(record.name)}: "
        extras = {name: value for name, value in log_record.extras_of(record, NOT_SHOWN).items() if name not in OWN}
        text = f"{at}.{int(record.msecs):03d} {record.levelname:<7} {name}{log_record.message_of(record)}{shown(extras)}"
        trace = log_record.exception_of(record)[1]
        return lines(f"{text}\n{trace}" if trace else text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (ISO 8601, UTC), level, logger, message, traceback, the task's fields, and each `extra` by its name."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        plain = getattr(record, "_plain", None)
        fields = {"time": f"{at}.{int(record.msecs):03d}Z", "level": record.levelname.lower(), "logger": record.name}
        fields["message"] = log_record.message_of(record) if plain is None else plain
        error_type, trace = log_record.exception_of(record)
        if trace:
            fields["traceback"] = trace
        extras = log_record.extras_of(record)
        extras.pop("handled_there", None)
        if error_type:
            extras["error_type"] = error_type
        fields |= {name: extras.pop(name) for name in OWN if name in extras}
        fields |= {f"extra_{name}" if name in fields else name: value for name, value in extras.items()}
        return json.dumps(fields)


def configure_logging(level: str, format: str, file: str | None = None) -> LogWriter:
    """Log to stderr, or append to `file`, as the command does. `level` as in `config.LOG_LEVELS`, `format` "text" or "json".

    Raises InvalidOptions where the file cannot be written to.
    """
    outlet = LogWriter(None if file is None else LogFile(file))
    outlet.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    outlet.setLevel(level.upper())
    logging.basicConfig(level=level.upper(), handlers=[outlet], force=True)
    return outlet
