"""The application, and how a hostile handler's processes can be found again.

    ledger   a line for each process that could write one: pid, session, start time (clock ticks since boot, which tells a reused pid
             apart), and when it wrote the line (wall clock); the first is the isolate's, as its handler begins
    marker   in the environment of whatever was executed
    title    whatever was only forked shows its isolate's title: the task's name and id

A daemon that closed and emptied everything stands in the ledger alone, as does whatever left the session.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from stem_iso import Stem

SOFT, HARD = 0.1, 0.2
MARKER = "STEM_ISO_HOSTILE"
LONGEST = 60.0  # seconds: how long a process lives that nobody kills, so that a proof that fails does not fill the machine

app = Stem()


class Trace:
    """What one hostile task leaves for those who look for survivors."""

    def __init__(self, ledger: str | None, marker: str | None) -> None:
        self.ledger = ledger
        if marker is not None:
            os.environ[MARKER] = marker
        self.record()

    def record(self) -> None:
        """This process, in one write, so that lines of many processes do not mix."""
        if self.ledger is None:
            return
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
            started = file.read().rpartition(")")[2].split()[19]
        fd = os.open(self.ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, f"{os.getpid()} {os.getsid(0)} {started} {time.time():.4f}\n".encode())
        os.close(fd)

    def fork(self, child: Callable[[], object]) -> int:
        """A child that records itself, does `child()` and ends."""
        pid = os.fork()
        if pid == 0:
            try:
                self.record()
                child()
            finally:
                os._exit(0)
        return pid


def hostile(
    *, soft: float = SOFT, hard: float = HARD, action: str = "event", memory: str | None = None
) -> Callable[[Callable[[Trace], Any]], Callable[[Trace], Any]]:
    """Decorator: the function is the task `hostile.<its name>`."""

    def declare(handler: Callable[[Trace], Any]) -> Callable[[Trace], Any]:
        name = f"hostile.{handler.__name__}"

        @app.task(name=name, isolate=True, soft_time_limit=soft, hard_time_limit=hard, soft_limit_action=action, memory_limit=memory)
        def run(ledger: str | None = None, marker: str | None = None) -> Any:
            return handler(Trace(ledger, marker))

        return handler

    return declare
