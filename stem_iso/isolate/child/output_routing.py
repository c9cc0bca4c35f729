"""Routing of output in the inline host: what a call prints or logs is sent under that call's number.

    print ──> sys.stdout (text) ──> Routed ──┬─ inside a call: PRINT frames, line by line, under the call's number
    logging ─────────────────────────────────┤
                                             └─ outside of one: the process's own descriptor; the worker's log has it without a task

Rules
 1. Which call it is, the context says (a ContextVar): coroutines and what they await have it, and threads made by `asyncio.to_thread`. A
    thread that a handler starts by itself has none in Python 3.11, nor have C code and subprocesses, which write to the descriptor.
 2. Text waits in its call for the end of its line: two calls that print at once never share one.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from contextvars import ContextVar
from typing import Any, BinaryIO, Protocol

from stem_iso.isolate.log_record import LogForwarder, packed


class OutputReceiver(Protocol):
    """A call that is running."""

    def printed(self, stream: int, data: bytes) -> bool:
        """False: it has ended, and this is not its text any more."""

    def logged(self, level: int, logger: str, text: str, details: bytes) -> bool: ...


current: ContextVar[OutputReceiver | None] = ContextVar("stem_iso.hosted_call", default=None)


class Routed(io.BufferedIOBase):
    """The binary side of sys.stdout or sys.stderr; `plain` is the process's own."""

    def __init__(self, stream: int, plain: BinaryIO) -> None:
        self._stream, self._plain = stream, plain

    @property
    def name(self) -> str:
        return "<stdout>" if self._stream == 1 else "<stderr>"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream

    def isatty(self) -> bool:
        return False

    def write(self, data: Any) -> int:
        written = bytes(data)
        call = current.get()
        if call is None or not call.printed(self._stream, written):
            self._plain.write(written)
            if b"\n" in written:
                self._plain.flush()
        return len(written)

    def flush(self) -> None:
        self._plain.flush()


class RoutedLog(LogForwarder):
    """`logging`, with all that a record has, which printed text would lose. `fallback` takes what no call logs."""

    def __init__(self, fallback: OutputReceiver) -> None:
        super().__init__()
        self._fallback = fallback

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = packed(record)
            call = current.get()
            if (call is None or not call.logged(*line)) and not self._fallback.logged(*line):
                sys.stderr.write(f"{line[2]}\n")  # a process that a handler forked has no way to the core
        except Exception:  # as every handler of logging: the task must not fail because its log cannot be written
            self.handleError(record)


def route(fallback: OutputReceiver, log_level: int) -> LogForwarder:
    """For the whole life of the process, before any user code can take hold of the streams. The handler of its log."""
    for stream, name in ((1, "stdout"), (2, "stderr")):
        routed: Any = Routed(stream, os.fdopen(stream, "wb", closefd=False))
        setattr(sys, name, io.TextIOWrapper(routed, encoding="utf-8", errors="backslashreplace", write_through=True))
    handler = RoutedLog(fallback)
    handler.setLevel(log_level)
    logging.basicConfig(level=log_level, handlers=[handler])
    return handler
