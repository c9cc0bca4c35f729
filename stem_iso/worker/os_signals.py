"""Stop signals: how they count, and how a program that gives its main thread to a worker takes them.

    TERM, INT   the first: drain; a second: at once          QUIT: at once

A TERM within 100 ms after another one is its echo, and does not count: `timeout 60 COMMAND` sends it to its child, and then to the process
group that the child is in. INT has no echo: a second one is a hand that presses Ctrl-C again.

Python runs signal handlers in the main thread, between two bytecodes. While a first signal is pending there, the kernel gives a second one
to another thread, and a main thread that sleeps in a lock does not notice that one. So the main thread sleeps in poll(), on the descriptor
into which Python's own C handler writes in whatever thread.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from math import inf
from time import monotonic
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Future

ECHO = 0.1  # seconds: `timeout` needs microseconds between its two, a person some tenths
TAKEN = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class StopCount:
    """How often somebody has asked for the end: 1 is drain, 2 and more at once. Owned by the main thread, in which handlers run."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.count = 0
        self.since = inf  # when the last one came
        self._clock, self._term = clock, -inf  # when the last TERM came that counted

    def take(self, number: int) -> bool:
        """Whether this signal counts."""
        now = self._clock()
        if number == signal.SIGTERM:
            if now - self._term < ECHO:
                return False
            self._term = now
        self.count = max(2, self.count + 1) if number == signal.SIGQUIT else self.count + 1
        self.since = now
        return True


class StopSignals:
    """A context manager of the main thread: inside, `stop(at_once)` is called for signals. What was set before is set again at its end."""

    def __init__(self, stop: Callable[[bool], None]) -> None:
        self._stop, self._stops = stop, StopCount()
        self._before: dict[int, Any] = {}
        self._mask: set[int | signal.Signals] = set()

    def __enter__(self) -> StopSignals:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._fd_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._take) for number in TAKEN}
        self._mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, TAKEN)  # whoever started the program may have blocked them
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd_before)
        os.close(self._reader)
        os.close(self._writer)

    def wait(self, future: Future[None]) -> None:
        """Until it is done. Raises what it holds."""
        ended = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        future.add_done_callback(lambda _: os.eventfd_write(ended, 1))
        waiter = select.poll()
        for fd in (self._reader, ended):
            waiter.register(fd, select.POLLIN)
        while not future.done():
            if any(fd == self._reader for fd, _ in waiter.poll()):
                os.read(self._reader, 512)
        os.close(ended)
        future.result()

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._stops.take(number):
            self._stop(self._stops.count > 1)
