"""Wake-ups: whoever commits notifies a topic, whoever waits listens to it.

    writer: COMMIT ── one byte into PATH-wake ──inotify──> a worker's `WorkWatch`          new work, orders
                      one byte into PATH-done ──inotify──> who waits for a result
                      one byte into PATH-events ─inotify─> who listens to events

A wake-up never says what has changed. It comes after the commit, so who gets it sees the work, and a topic that cannot be notified (no
descriptor left, a full disk) is no failure of what was stored: it is logged, once. That, and a writer killed between the two, is made up
for by `data_version` every 250 ms. Sidecars need no registration and leave nothing stale behind a kill. Watching `-wal` itself would wake
everybody four times per commit, each time before it is visible. Where inotify cannot be had (128 instances per user), the listener is
polled.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Protocol

from stem_iso.brokers.sqlite.lock_file import Descriptor, opened_beside

INTERVAL = 0.25  # seconds between two reads of data_version behind the wake-ups
POLL = 0.01  # without wake-ups

IN_MODIFY = 0x2
IN_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC


class Topic(Enum):
    __hash__ = object.__hash__  # each is there once; that of Enum is a function of Python's, and each commit asks for it

    WORK = "-wake"
    DONE = "-done"
    EVENTS = "-events"


class Listener(Protocol):
    interval: float

    def fileno(self) -> int: ...

    def notified(self) -> bool:
        """Whether there was a wake-up since the last time; takes the readiness back."""

    def close(self) -> None: ...


def block(listener: Listener, seconds: float) -> None:
    """Until a wake-up, at most `seconds`, and never longer than the listener's interval."""
    poll = select.poll()
    poll.register(listener.fileno(), select.POLLIN)
    poll.poll(max(0.0, min(seconds, listener.interval)) * 1000)
    listener.notified()


def drain(fd: int) -> bool:
    """Empty a non-blocking descriptor; True if there was anything."""
    try:
        return bool(os.read(fd, 65_536))
    except BlockingIOError:
        return False


class SidecarListener:
    """inotify on one sidecar; without wake-ups, and with a short `interval`, where there is no inotify."""

    def __init__(self, path: str, mode: int | None) -> None:
        os.close(opened_beside(path, os.O_WRONLY, mode))
        fd = _inotify(path)
        self.interval = POLL if fd is None else INTERVAL
        # Without inotify: a pipe that nobody writes to is good for poll, and never readable.
        self._ends = [Descriptor(end) for end in ((fd,) if fd is not None else os.pipe())]

    def fileno(self) -> int:
        return self._ends[0].fd

    def notified(self) -> bool:
        return self.interval == INTERVAL and drain(self.fileno())

    def close(self) -> None:
        for end in self._ends:
            end.close()


def _inotify(path: str) -> int | None:
    import ctypes  # only who blocks needs it

    libc = ctypes.CDLL(None, use_errno=True)
    try:
        fd: int = libc.inotify_init1(IN_FLAGS)
    except AttributeError:  # not Linux
        return None
    if fd < 0:
        return None
    if libc.inotify_add_watch(fd, os.fsencode(path), IN_MODIFY) < 0:
        os.close(fd)
        return None
    return fd


class Sidecar:
    """The writer's end of one topic. Opened at its first wake-up."""

    def __init__(self, path: str, mode: int | None) -> None:
        self._file = Descriptor(opened_beside(path, os.O_WRONLY, mode))

    def notify(self) -> None:
        os.pwrite(self._file.fd, b"\n", 0)  # in place: the file stays one byte long

    def close(self) -> None:
        self._file.close()


class PipeListener:
    """For threads of one process: a pipe that the store writes to."""

    interval = INTERVAL

    def __init__(self, on_close: Callable[[PipeListener], None]) -> None:
        self._on_close = on_close  # first: a write into a closed descriptor could reach somebody else's file
        self._reader, self._writer = map(Descriptor, os.pipe())
        for end in (self._reader, self._writer):
            os.set_blocking(end.fd, False)

    def notify(self) -> None:
        # What is stored is stored, whatever becomes of the wake-up. A full pipe wakes its reader anyway.
        with suppress(OSError):
            os.write(self._writer.fd, b"\n")

    def fileno(self) -> int:
        return self._reader.fd

    def notified(self) -> bool:
        return drain(self._reader.fd)

    def close(self) -> None:
        self._on_close(self)
        self._reader.close()
        self._writer.close()
