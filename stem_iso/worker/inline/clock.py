"""The clock of inline handlers: a thread that runs what is due. (The engine has timers of its own.)

No heap: there are no more running calls than seats, so a look at all of them is cheaper than keeping an order, and a call that has ended
leaves nothing behind.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf


class InlineClock:
    """`look(now)` does what is due and returns when to look again (monotonic seconds); it runs on the clock's thread and must not block."""

    def __init__(self, look: Callable[[float], float]) -> None:
        self._look = look
        self._next = inf  # under the condition's lock
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def by(self, when: float) -> None:
        """Look no later than this. Costs a comparison unless it is earlier than all that was asked before."""
        if when >= self._next:
            return
        with self._wake:
            self._next = min(self._next, when)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="stem-iso-clock", daemon=True)
                self._thread.start()
            self._wake.notify()

    def close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify()

    def _run(self) -> None:
        while self._due():
            self.by(self._look(time.monotonic()))

    def _due(self) -> bool:
        with self._wake:
            while not self._closed:
                wait = self._next - time.monotonic()
                if wait <= 0:
                    self._next = inf
                    return True
                self._wake.wait(None if wait == inf else wait)
        return False
