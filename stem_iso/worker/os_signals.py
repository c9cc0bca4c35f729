"""Stop signals of a program that gives its main thread to a worker.

    TERM, INT   the first: drain; a second: at once          QUIT: at once

Python runs signal handlers in the main thread, between two bytecodes. While a first signal is pending there, the kernel gives a second one
to another thread, and a main thread that sleeps in a lock does not notice that one. So the main thread sleeps in poll(), on the descriptor
into which Python's own C handler writes in whatever thread.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType, TracebackType
from typing import Any

TAKEN = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class StopSignals:
    """A context manager of the main thread: inside, `stop(at_once)` is called for signals. What was set before is set again at its end."""

    def __init__(self, stop: Callable[[bool], None]) -> None:
        self._stop, self._count = stop, 0
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
        self._count += 1
        self._stop(self._count > 1 or number == signal.SIGQUIT)
