"""Signals as the kernel saw them: who sent which to whom, when, on CLOCK_MONOTONIC; without touching the system under test.

Needs root and a mounted tracefs. Elsewhere `signals` finds none, and samples say that none were seen. The trace is an instance of this
program's own, removed at its end, so that nobody else's is disturbed.
"""

from __future__ import annotations

import os
import re
import select
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

TRACEFS = Path("/sys/kernel/tracing")
LINE = re.compile(r"-(\d+)\s+\[\d+\]\s+\S+\s+([\d.]+): signal_generate: sig=(\d+) .* pid=(\d+) ")


@dataclass(frozen=True)
class Signal:
    at: float
    sender: int
    number: int
    target: int


class Signals:
    """The last ones, newest last."""

    def __init__(self, path: Path | None) -> None:
        self._seen: deque[Signal] = deque(maxlen=20_000)
        self._done = Event()
        self.available = path is not None
        if path is not None:
            Thread(target=self._read, args=(path / "trace_pipe",), daemon=True).start()

    def to(self, pid: int, since: float) -> list[Signal]:
        return [one for one in list(self._seen) if one.target == pid and one.at >= since]

    def close(self) -> None:
        self._done.set()

    def _read(self, pipe: Path) -> None:
        fd, rest = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), ""
        with suppress(OSError):
            while not self._done.is_set():
                if not select.select([fd], [], [], 0.2)[0]:
                    continue
                try:
                    text = rest + os.read(fd, 1 << 16).decode(errors="replace")
                except BlockingIOError:
                    self._done.wait(0.02)
                    continue
                *lines, rest = text.split("\n")
                self._seen.extend(one for line in lines if (one := parse(line)))
        os.close(fd)


def parse(line: str) -> Signal | None:
    if not (found := LINE.search(line)):
        return None
    sender, at, number, target = found.groups()
    return Signal(float(at), int(sender), int(number), int(target))


@contextmanager
def signals() -> Iterator[Signals]:
    """All signals but SIGCHLD, from now on."""
    instance: Path | None = TRACEFS / "instances" / f"bench-{os.getpid()}"
    assert instance is not None
    try:
        instance.mkdir()
        (instance / "trace_clock").write_text("mono")
        event = instance / "events" / "signal" / "signal_generate"
        (event / "filter").write_text("sig != 17")
        (event / "enable").write_text("1")
    except OSError:
        instance = None
    seen = Signals(instance)
    try:
        yield seen
    finally:
        seen.close()
        if instance is not None:
            with suppress(OSError):
                (instance / "events" / "signal" / "signal_generate" / "enable").write_text("0")
                instance.rmdir()
