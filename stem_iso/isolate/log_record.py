"""Log records on their way from the process of a handler to the log of whoever runs it: level, logger, text, and what else they carry.

    isolate   record ──> the application's own handlers there, once
                └──> LOG frame: level, logger, text + RecordDetails ──> core ──> record again ──> the log of the worker, or of a program

Rules
 1. A record keeps its logger's name, its level, its time, each `extra`, and its exception: as text, and the class's name. An extra that
    is no plain data travels as its `repr`; all is bounded.
 2. A record is once in each log. A handler that writes to the process's own stdout or stderr (a console handler) is silenced where those
    are captured (`attach`), since the record arrives by itself, with its level. Where a handler of the application's own had the record
    (`RecordDetails.handled`), the program that gets it shows it to console handlers alone (`pass_on`).
 3. `dictConfig` disables, by default, each logger that it does not name, those of the application's own modules too: `attach` enables them.
 4. A handler may configure logging too, while it runs (Alembic's `env.py`, the `setup_logging` of a library). `Attachment` looks after each
    call, and attaches again where something was configured. It sees that in the root's handlers and in a logger of its own: every
    configuration sets `disabled` of each logger that it does not name, to one value or the other.
 5. structlog's wrapped event dicts are read as what they say: event, fields, exception.
"""

from __future__ import annotations

import logging
import math
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import msgspec

from stem_iso.text import cut, cut_inside

STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
MOST_EXTRAS = 64  # of a record, and items of a list or map in one
LONGEST_EXTRA = 8 << 10  # bytes of a text in one, and of a repr
MOST_EXTRA_BYTES = 64 << 10  # of all extras of a record
DEEPEST = 4  # maps and lists within each other
STRUCTLOG_OWN = frozenset(("event", "level", "logger", "exc_info", "exception", "stack", "stack_info"))  # shown in other places of a record

WITNESS = "_stem_iso"  # a logger that nobody uses
UNTOUCHED: Any = None  # what nobody sets `disabled` of a logger to; as good as False

_encode = msgspec.msgpack.Encoder().encode


class RecordDetails(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What a record carries beside level, logger and text. `handled`: a handler of the application's own had it in its process."""

    at: float = 0.0  # wall clock; 0: unknown
    extra: dict[str, Any] = {}
    error_type: str = ""
    traceback: str = ""
    handled: bool = False


_decoder = msgspec.msgpack.Decoder(RecordDetails)
NO_DETAILS = RecordDetails()


class LogForwarder(logging.Handler):
    """A handler of ours, as distinguished from the application's own."""


class _Silence(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return False


SILENCE = _Silence()

# -- reading a record ------------------------------------------------------------------------------------------------------------------


def wrapped(record: logging.LogRecord) -> dict[str, Any] | None:
    """The event dict that structlog's `wrap_for_formatter` made the record of."""
    return record.msg if isinstance(record.msg, dict) and "event" in record.msg and not record.args else None


def message_of(record: logging.LogRecord) -> str:
    event = wrapped(record)
    return record.getMessage() if event is None else str(event["event"])


def extras_of(record: logging.LogRecord, without: frozenset[str] = STANDARD) -> dict[str, Any]:
    """Each `extra` of the record as plain data, bounded; but for the names in `without`, which has those of STANDARD."""
    found = {name: value for name, value in record.__dict__.items() if name not in without and not name.startswith("_")}
    if (event := wrapped(record)) is not None:
        found |= {name: value for name, value in event.items() if name not in STRUCTLOG_OWN and not str(name).startswith("_")}
    extras, room = {}, MOST_EXTRA_BYTES
    for name, value in list(found.items())[:MOST_EXTRAS]:
        short = cut(str(name), 255)
        shown = plain(value)
        room -= len(short) + len(_encode(shown))
        if room < 0:
            break
        extras[short] = shown
    return extras


def plain(value: Any, depth: int = DEEPEST) -> Any:
    """The value as data that JSON and msgpack carry; of what is none, its repr."""
    kind = type(value)
    if value is None or kind is bool or (kind is float and math.isfinite(value)) or (kind is int and -(1 << 63) <= value < 1 << 64):
        return value
    if kind is str:
        return cut(value, LONGEST_EXTRA)
    if kind is dict and depth:
        return {cut(str(key), 255): plain(each, depth - 1) for key, each in list(value.items())[:MOST_EXTRAS]}
    if kind in (list, tuple) and depth:
        return [plain(each, depth - 1) for each in value[:MOST_EXTRAS]]
    try:
        return cut(repr(value), LONGEST_EXTRA)
    except Exception as error:  # user code: a log must not fail by what it shows
        return f"<{kind.__name__}, whose repr raised {type(error).__name__}>"


def exception_of(record: logging.LogRecord) -> tuple[str, str]:
    """The name of the exception's class, and the traceback with the stack that was asked for; empty where the record has none."""
    event = wrapped(record) or {}
    error, texts = _error(record.exc_info or event.get("exc_info")), []
    if error is not None:
        texts.append("".join(traceback.format_exception(error)).rstrip())
    elif record.exc_text or event.get("exception"):
        texts.append(str(record.exc_text or event.get("exception")))
    if stack := record.stack_info or event.get("stack"):
        texts.append(str(stack))
    return "" if error is None else name_of(type(error)), cut_inside("\n".join(texts))


def _error(found: Any) -> BaseException | None:
    if isinstance(found, tuple) and len(found) == 3:
        found = found[1]
    elif found is True:
        found = sys.exc_info()[1]
    return found if isinstance(found, BaseException) else None


def name_of(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


# -- the way out of a process ----------------------------------------------------------------------------------------------------------


def packed(record: logging.LogRecord) -> tuple[int, str, str, bytes]:
    """Level, logger, text and details, for a LOG frame. Raises what formatting the message raises."""
    error_type, trace = exception_of(record)
    details = RecordDetails(record.created, extras_of(record), error_type, trace, _handled(record))
    return min(record.levelno, 255), record.name, message_of(record), _encode(details)


def unpacked(details: bytes) -> RecordDetails:
    """Bytes that are none, which a handler may have written to the pipe, are no details."""
    try:
        return _decoder.decode(details) if details else NO_DETAILS
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return NO_DETAILS


def chain(logger: logging.Logger | None) -> Iterator[logging.Handler]:
    """All handlers that a record of this logger meets."""
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _own(handler: logging.Handler) -> bool:
    return not isinstance(handler, LogForwarder | logging.NullHandler)


def _handled(record: logging.LogRecord) -> bool:
    handlers = chain(logging.getLogger(record.name))
    return any(_own(each) and SILENCE not in each.filters and record.levelno >= each.level for each in handlers)


# -- the way into a log ----------------------------------------------------------------------------------------------------------------


def restored(level: int, logger: str, text: str, details: RecordDetails, fields: dict[str, Any]) -> logging.LogRecord:
    """The record again, with `fields` as further attributes; an extra that bears the name of one of those gets `extra_` before it."""
    record = logging.LogRecord(logger, level, "", 0, text, None, None)
    if details.at:
        date(record, details.at)
    extras = {f"extra_{name}" if name in fields else name: value for name, value in details.extra.items() if name not in STANDARD}
    if details.error_type:
        fields = {**fields, "error_type": details.error_type}
    record.__dict__.update(extras | fields)
    record.exc_text = details.traceback or None
    return record


def date(record: logging.LogRecord, at: float) -> None:
    record.created, record.msecs = at, at % 1 * 1000


def pass_on(logger: logging.Logger, record: logging.LogRecord, handled: bool) -> None:
    """Give it to the handlers above `logger`; if it was handled where it was made, to ours and to console handlers alone."""
    if not handled:
        logger.handle(record)
        return
    record.handled_there = True
    for handler in chain(logger):
        if record.levelno >= handler.level and (isinstance(handler, LogForwarder) or is_console(handler)):
            handler.handle(record)


def is_console(handler: logging.Handler) -> bool:
    """Whether it writes to this process's stdout or stderr."""
    try:
        stream = getattr(handler, "stream", None) or getattr(getattr(handler, "console", None), "file", None)  # of logging, of rich
        if stream is None or isinstance(handler, logging.FileHandler):
            return False
        if any(stream is each for each in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)):
            return True
        return bool(stream.fileno() in (1, 2))
    except Exception:  # user code, and streams that have no descriptor or are closed
        return False


def attach(handler: LogForwarder, *, beside: bool = True, silence: bool = True) -> None:
    """After user code was imported, which may have configured logging: no logger is off, and `handler` gets each record once.

    `dictConfig` disables every logger that it does not name, and takes from the root what it does not name there. `silence`: console
    handlers write nothing, because `handler` writes to the same place. `beside`: also where the root has other handlers; else what user
    code configured stands, as in the isolates of a pool, whose program has no log of its own.
    """
    root = logging.getLogger()
    if not beside:
        if not root.handlers:
            root.addHandler(handler)
        return  # the rest is the program's
    for logger in (root, *list(root.manager.loggerDict.values())):
        if not isinstance(logger, logging.Logger):
            continue
        if logger.disabled:
            logger.disabled = False
        if handler not in logger.handlers and (logger is root or (not logger.propagate and any(map(_own, logger.handlers)))):
            logger.addHandler(handler)
        for each in logger.handlers if silence else ():
            if _own(each) and SILENCE not in each.filters and is_console(each):
                each.addFilter(SILENCE)


class Attachment:
    """A handler that stays attached: options as in `attach`. Any thread."""

    def __init__(self, handler: LogForwarder, *, beside: bool = True) -> None:
        self._handler, self._beside = handler, beside
        self._root, self._witness = logging.getLogger(), logging.getLogger(WITNESS)
        self._kept: list[logging.Handler] = []

    def attach(self) -> None:
        """After user code was imported."""
        self._witness.disabled = UNTOUCHED  # first: what another thread configures from here on is seen
        attach(self._handler, beside=self._beside)
        self._kept = self._root.handlers[:]

    def renew(self) -> None:
        """After each call. What it costs where nothing was configured: 0.1 µs."""
        if self._witness.disabled is not UNTOUCHED or self._root.handlers != self._kept:
            self.attach()
