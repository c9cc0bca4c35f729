"""The log output of a worker by command, on a thread of its own: to stderr or to a file, and to the handlers that the application has.

    any thread ── log of the application ──> LogWriter, on the root ──┐
               └─ log of ours ──> LogRelay, on "stem_iso" ────────────┴─> queue ──> its thread ──> descriptor 2, or LogFile: what waits
                                                                                          └──> the application's handlers: after that

Rules
 1. Who logs never waits. A reader of stderr that stalls (Ctrl-S, the log driver of a container) holds up this thread, and no limit or stop.
 2. Past `ROOM` bytes lines are dropped, and their number is logged when there is room again. What handlers print and log, and what else
    the application logs, may fill `SHARE` of it: a flood of that leaves room for what the worker says of itself and of its tasks.
 3. At the end what waits is written, for `GRACE` seconds at most.
 4. Nobody writes to sys.stderr: its lock, held by a write that does not return, would hold up the end of the interpreter.
 5. An application that configures logging while it is imported hides nothing and doubles nothing (`adopt`): a record is once in the
    worker's log, and once in the application's own handlers. A console handler of its own is silenced where the worker's log is stderr.
    Our loggers have the worker's level, unless the application set one on "stem_iso".
 6. `LogFile` is appended to, by launcher and core. Where its path leads to another file, or to none, it is opened anew (logrotate).
    What cannot be written there, a full disk, goes to stderr.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeAlias

from stem_iso.errors import InvalidOptions
from stem_iso.isolate.log_record import LogForwarder, attach, is_console

ROOM = 16 << 20  # bytes that may wait
SHARE = ROOM * 3 // 4  # of these, while the next line is none of the worker's own
GRACE = 2.0  # seconds
COST = 256  # bytes of a line beside its text, roughly
CHUNK = 1 << 16  # a pipe's worth: what is written at once
ROOT_LOGGER = "stem_iso"

# What is written, or what makes it on the writer's thread; what is done there afterwards; and the bytes that it counts for.
Item: TypeAlias = "tuple[str | Callable[[], str], Callable[[], None] | None, int]"


class LogFile:
    """A file that lines are appended to. Raises InvalidOptions where it cannot be opened."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)  # an application may change the working folder
        try:
            self._fd, self._file = self._open()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            way_out = "give a path that this user may write to, or leave it out: the log is on stderr then"
            raise InvalidOptions(f"log_file: {path!r} cannot be written to ({reason}); {way_out}") from None

    def _open(self) -> tuple[int, tuple[int, int]]:
        # Not blocking: a FIFO that nobody reads is an error, and no hang.
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
        os.set_blocking(fd, True)
        return fd, _identity(os.fstat(fd))

    def write(self, text: str) -> None:
        self._follow()
        data = memoryview(text.encode(errors="backslashreplace"))
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            to_stderr(text)

    def _follow(self) -> None:
        """To the file that the path leads to now. Where none can be made there, the old one is still a place for the log."""
        with suppress(OSError):
            with suppress(FileNotFoundError):
                if _identity(os.stat(self._path)) == self._file:
                    return
            old = self._fd
            self._fd, self._file = self._open()
            os.close(old)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


class LogWriter(LogForwarder):
    """Writes lines and records in the order in which they were put. Its thread starts with the first of them."""

    def __init__(self, file: LogFile | None = None) -> None:
        super().__init__()
        self.file = file
        self._changed = threading.Condition()  # guards all below
        self._items: deque[Item] = deque()
        self._waiting = 0  # bytes, those included that are being written
        self._dropped = 0  # lines, not logged yet
        self._grace = GRACE  # what is left of GRACE
        self._thread: threading.Thread | None = None
        os.register_at_fork(after_in_child=self._forked)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.write(self.format(record) + "\n", room_for(record))
        except Exception:  # as every handler of logging: whoever logs must not fail by it
            self.handleError(record)

    def write(self, text: str, room: int = ROOM) -> None:
        self.put(text, len(text), room=room)

    def error(self, text: str) -> None:
        """Why the worker ends: for whoever started it, one line on stderr; a log in a file has it as a record of its own form."""
        line = f"Error: {text}\n"
        if self.file is None:
            self.write(line)
            return
        self.emit(logging.LogRecord("stem_iso.worker", logging.ERROR, __file__, 0, text, None, None))
        self.put("", len(line), partial(to_stderr, line))

    def show(self, text: str) -> None:
        """On the writer's thread: at once."""
        if self.file is None:
            to_stderr(text)
        else:
            self.file.write(text)

    def put(self, text: str | Callable[[], str], size: int, then: Callable[[], None] | None = None, *, room: int = ROOM) -> None:
        """Any thread. Dropped where more than `room` bytes would wait."""
        size += COST
        with self._changed:
            if self._waiting + size > room:
                self._dropped += 1
                return
            self._items.append((text, then, size))
            self._waiting += size
            if self._thread is None:
                self._start()
            self._changed.notify_all()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="stem-iso-log", daemon=True)
        with suppress(RuntimeError):  # no thread is to be had: the next line tries again, and writes this one too
            thread.start()
            self._thread = thread

    def flush(self) -> None:
        """Wait until all is written, for `GRACE` at most in all. `logging.shutdown` calls it."""
        with self._changed:
            began = time.monotonic()
            self._changed.wait_for(lambda: not self._waiting or self._thread is None, self._grace)
            self._grace = max(0.0, self._grace - (time.monotonic() - began))

    def _forked(self) -> None:
        self._changed, self._thread = threading.Condition(), None
        self._items, self._grace = deque(), GRACE
        self._waiting = self._dropped = 0

    # -- the writer ----------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items)
                items, self._items = self._items, deque()
            while items:
                self._write_some(items)
                if self._dropped:
                    self._report_dropped()

    def _write_some(self, items: deque[Item]) -> None:
        """The next ones, with one write for all of them: a write for each would be slower than the tasks that print."""
        texts, afterwards, done = [], [], 0
        while items and done < CHUNK:
            text, then, size = items.popleft()
            texts.append(text if isinstance(text, str) else text())
            if then is not None:
                afterwards.append(then)
            done += size
        if written := "".join(texts):
            self.show(written)
        for then in afterwards:
            then()
        with self._changed:
            self._waiting -= done
            self._changed.notify_all()

    def _report_dropped(self) -> None:
        with self._changed:
            lost, self._dropped = self._dropped, 0
        text = "%d lines of the log were dropped: it is written more slowly than it is filled"
        self.show(self.format(logging.LogRecord(f"{ROOT_LOGGER}.worker", logging.WARNING, __file__, 0, text, (lost,), None)) + "\n")


class LogRelay(LogForwarder):
    """On the logger above all of ours: puts each record into the writer's queue; on the writer's thread it is written, and given to the
    application's handlers."""

    def __init__(self, outlet: LogWriter, handlers: list[logging.Handler], propagates: bool) -> None:
        super().__init__()
        self._outlet, self._handlers, self._propagates = outlet, handlers, propagates

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args = record.getMessage(), None  # now: what it is made of may change
        size = len(record.msg) + len(record.exc_text or "")
        self._outlet.put(partial(self._text, record), size, partial(self._pass_on, record), room=room_for(record))

    def _text(self, record: logging.LogRecord) -> str:
        if record.levelno < self._outlet.level:
            return ""
        try:
            return self._outlet.format(record) + "\n"
        except Exception:  # what the application put into the record
            self._outlet.handleError(record)
            return ""

    def _pass_on(self, record: logging.LogRecord) -> None:
        for handler in [*self._handlers, *(logging.getLogger().handlers if self._propagates else ())]:
            try:
                if self._is_for(handler, record):
                    handler.handle(record)
            except BaseException:  # user code; a handler that calls sys.exit() must not end the log
                self._outlet.show(f"the handler {handler!r} raised\n{traceback.format_exc()}")

    def _is_for(self, handler: logging.Handler, record: logging.LogRecord) -> bool:
        if isinstance(handler, LogForwarder) or record.levelno < handler.level:
            return False
        return not hasattr(record, "handled_there") or is_console(handler)


def adopt(outlet: LogWriter, level: int | str) -> None:
    """After user code was imported: see rule 5."""
    attach(outlet, silence=outlet.file is None)
    logger = logging.getLogger(ROOT_LOGGER)
    if logger.level == logging.NOTSET:
        logger.setLevel(level)
    if not any(isinstance(handler, LogRelay) for handler in logger.handlers):
        logger.handlers[:] = [LogRelay(outlet, logger.handlers[:], logger.propagate)]
        logger.propagate = False


def set_level(level: int) -> None:
    """From now on. An embedded worker has no output of its own: there it is the level of our loggers alone."""
    logging.getLogger(ROOT_LOGGER).setLevel(level)
    root = logging.getLogger()
    outlets = [handler for handler in root.handlers if isinstance(handler, LogWriter)]
    for outlet in outlets:
        outlet.setLevel(level)
        root.setLevel(level)


def room_for(record: logging.LogRecord) -> int:
    """All for the worker's own records; less for those of the application, and for what handlers print and log (`log._line`)."""
    own = record.name.partition(".")[0] == ROOT_LOGGER and not hasattr(record, "_plain")
    return ROOM if own else SHARE


def to_stderr(text: str) -> None:
    """Whole, however long that takes. A stderr that nobody can read any more costs the text."""
    data = memoryview(text.encode(errors="backslashreplace"))
    with suppress(OSError):
        while data:
            try:
                data = data[os.write(2, data[:CHUNK]) :]
            except BlockingIOError:  # somebody who shares the terminal has made it so
                poll = select.poll()
                poll.register(2, select.POLLOUT)
                poll.poll()
