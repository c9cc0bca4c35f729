"""Threads for inline sync handlers: started on demand, kept, and daemons, so that a stuck handler cannot hold up the end of the program.

What a handler changes in its thread (signal mask, trace and profile functions, niceness, affinity) is put back, or the thread is not used
again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from stem_iso.isolate.child.state import ProcessState, of_thread


class Threads:
    """Runs each piece of work at once: as many threads as there ever were pieces at a time, which the worker's seats bound."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[Callable[[], None] | None]] = []  # the last one back goes first: its stack is warm
        self._closed = False

    def run(self, work: Callable[[], None]) -> None:
        """`work` must not raise."""
        with self._lock:
            queue = self._idle.pop() if self._idle else None
        if queue is None:
            queue = SimpleQueue()
            threading.Thread(target=self._serve, args=(queue,), name=self._name, daemon=True).start()
        queue.put(work)

    def close(self) -> None:
        """Idle threads leave; busy ones after their work."""
        with self._lock:
            self._closed, idle, self._idle = True, self._idle, []
        for queue in idle:
            queue.put(None)

    def _serve(self, queue: SimpleQueue[Callable[[], None] | None]) -> None:
        state = ProcessState(of_thread())
        while (work := queue.get()) is not None:
            work()
            del work  # nothing of a finished call is kept
            if state.restore().lost:
                return
            with self._lock:
                if self._closed:
                    return
                self._idle.append(queue)
