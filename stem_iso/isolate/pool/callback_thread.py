"""Thread for user code, which may block and must delay no kill: callbacks of futures, listeners, printed lines.

    engine, submitters ── put(work) ──> queue ──> one daemon thread, from the first work on

Rules
 1. Whatever is raised is logged, SystemExit included, and the next work runs all the same. Ctrl-C alone goes on, where it belongs.
 2. With `most`, no more than so much waits; what comes then is dropped, counted and logged: a listener that lags costs notices,
    not memory.
 3. `close` lets what waits be done, and waits for it, unless it is this thread itself that closes.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from math import inf
from queue import SimpleQueue
from time import monotonic

log = logging.getLogger("stem_iso.isolate")

WARN_EVERY = 5.0  # seconds between two warnings


class CallbackThread:
    def __init__(self, name: str, most: int | None = None, what: str = "pieces of work") -> None:
        self.name, self._most, self._what = name, most, what
        self.dropped = 0
        self._warned, self._warned_at = 0, -inf  # how many of these the log knows of; owned by the thread
        self._waiting = 0  # the sizes of what is in the queue, under the lock
        self._queue: SimpleQueue[tuple[Callable[[], object], int] | None] = SimpleQueue()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._owner = os.getpid()

    def put(self, work: Callable[[], object], size: int = 1, count: int = 1) -> None:
        """Do it soon. After `close`, or without a thread, it is done here and now, or dropped where dropping is allowed and it is closed.

        `size`: what it takes of `most`; `count`: as how many it counts where it is dropped.
        """
        with self._lock:
            if self._most is not None and (self._closed or self._waiting + size > self._most):
                self.dropped += count
                return
            if not self._closed and self._has_thread():
                self._waiting += size
                self._queue.put((work, size))
                return
        self._do(work)

    def _has_thread(self) -> bool:
        """False where none is to be had: Python 3.12.0 and 3.12.1 start none when the main thread has ended, which a pool may outlive."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread = thread  # only now: one that could not be started cannot be joined
        return True

    def close(self, wait: bool = True) -> None:
        with self._lock:
            first, self._closed = not self._closed, True
        if self._thread is None or os.getpid() != self._owner:
            return
        if first:
            self._queue.put(None)
        if wait and self._thread is not threading.current_thread():
            self._thread.join()

    @property
    def is_here(self) -> bool:
        """Whether this is its thread."""
        return self._thread is threading.current_thread()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            work, size = item
            self._do(work)
            with self._lock:
                self._waiting -= size
            if self.dropped != self._warned and monotonic() - self._warned_at > WARN_EVERY:
                self._warn_dropped()
            del item, work  # while it waits for the next it must not keep what this one knew
        if self.dropped != self._warned:
            self._warn_dropped()

    def _warn_dropped(self) -> None:
        dropped, self._warned_at = self.dropped, monotonic()
        lost, self._warned = dropped - self._warned, dropped
        log.warning("%d %s dropped: they come faster than they are taken", lost, self._what)

    def _do(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # user code
            if is_ctrl_c(error):
                raise
            log.exception("%s: %r raised", self.name, work)


def is_ctrl_c(error: BaseException) -> bool:
    """Whether it may be the user who wants the program to end: Python raises that in the main thread, and nowhere else."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()
