"""The log output of a worker by command, on a thread of its own: to stderr, or to the handlers that the application has.

    any thread ── log of the application ──> LogWriter, on the root ──┐
               └─ log of ours ──> LogRelay, on "stem_iso" ────────────┴─> queue ──> its thread ──> descriptor 2
                                                                                          └──> the application's handlers, if any

Rules
 1. Who logs never waits. A reader of stderr that stalls (Ctrl-S, the log driver of a container) holds up this thread, and no limit or stop.
 2. Past `ROOM` bytes lines are dropped, and their number is logged when there is room again.
 3. At the end what waits is written, for `GRACE` seconds at most.
 4. Nobody writes to sys.stderr: its lock, held by a write that does not return, would hold up the end of the interpreter.
 5. An application that configures logging while it is imported (`dictConfig` disables every logger that it does not name) hides none of our
    records: `adopt` enables our loggers again. The application's own handlers then get our records; where the root has none any more,
    stderr does. Our loggers have the worker's level, unless the application set one on "stem_iso".
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
import traceback
from collections import deque
from contextlib import suppress
from typing import TypeAlias

from stem_iso.isolate.child.output_routing import keep_logging

ROOM = 16 << 20  # bytes that may wait
GRACE = 2.0  # seconds
COST = 256  # bytes of a line beside its text, roughly
CHUNK = 1 << 16  # a pipe's worth
OURS = "stem_iso"

Item: TypeAlias = "str | tuple[LogRelay, logging.LogRecord]"


class LogWriter(logging.Handler):
    """Writes lines and records in the order in which they were put. Its thread starts with the first of them."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()  # guards all below
        self._items: deque[tuple[Item, int]] = deque()
        self._waiting = 0  # bytes, those included that are being written
        self._dropped = 0  # lines, not logged yet
        self._grace = GRACE  # what is left of GRACE
        self._thread: threading.Thread | None = None
        os.register_at_fork(after_in_child=self._forked)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.write(self.format(record) + "\n")
        except Exception:  # as every handler of logging: whoever logs must not fail by it
            self.handleError(record)

    def write(self, text: str) -> None:
        self.put(text, len(text))

    def put(self, item: Item, size: int) -> None:
        size += COST
        with self._changed:
            if self._waiting + size > ROOM:
                self._dropped += 1
                return
            self._items.append((item, size))
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
                    self._tell_dropped()

    def _write_some(self, items: deque[tuple[Item, int]]) -> None:
        """The next ones: texts that stand together as one write, or one record."""
        texts: list[str] = []
        length = done = 0
        while items and length < CHUNK:
            item, size = items[0]
            if isinstance(item, str):
                texts.append(item)
                length += len(item)
            elif texts:
                break
            items.popleft()
            done += size
            if not isinstance(item, str):
                item[0].deliver(item[1])
                break
        if texts:
            to_stderr("".join(texts))
        with self._changed:
            self._waiting -= done
            self._changed.notify_all()

    def _tell_dropped(self) -> None:
        with self._changed:
            lost, self._dropped = self._dropped, 0
        text = "%d lines of the log were dropped: its reader is slower than the worker"
        to_stderr(self.format(logging.LogRecord(f"{OURS}.worker", logging.WARNING, __file__, 0, text, (lost,), None)) + "\n")


class LogRelay(logging.Handler):
    """On the logger above all of ours: puts each record into the writer's queue, and on the writer's thread gives it to its handlers."""

    def __init__(self, outlet: LogWriter, theirs: list[logging.Handler], propagates: bool) -> None:
        super().__init__()
        self._outlet, self._theirs, self._propagates = outlet, theirs, propagates

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args = record.getMessage(), None  # now: what it is made of may change
        self._outlet.put((self, record), len(record.msg))

    def deliver(self, record: logging.LogRecord) -> None:
        handlers = [*self._theirs, *(logging.getLogger().handlers if self._propagates else ())] or [self._outlet]
        for handler in handlers:
            try:
                if handler is self._outlet:
                    to_stderr(self._outlet.format(record) + "\n")
                elif record.levelno >= handler.level:
                    handler.handle(record)
            except BaseException:  # user code; a handler that calls sys.exit() must not end the log
                to_stderr(f"{self._outlet.format(record)}\nthe handler {handler!r} raised\n{traceback.format_exc()}")


def adopt(outlet: LogWriter, level: int | str) -> None:
    """After user code was imported: see rule 5."""
    keep_logging(outlet)
    ours = logging.getLogger(OURS)
    if ours.level == logging.NOTSET:
        ours.setLevel(level)
    if not any(isinstance(handler, LogRelay) for handler in ours.handlers):
        ours.handlers[:] = [LogRelay(outlet, ours.handlers[:], ours.propagate)]
        ours.propagate = False


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
