"""Wake-ups of an event loop: coroutines that wait for a pool's futures go on, all that were settled meanwhile in one turn of the loop.

    settle (any thread) ── LoopWaiter.release ──> due ── the first: call_soon_threadsafe ──> loop: drain ──> each task's next step

Rules
 1. A task waits for a LoopWaiter, which has what a task asks of a future (`_asyncio_future_blocking`, `get_loop`, `add_done_callback`,
    `result`, `cancel`), and takes its next step inside `drain`. An `asyncio.Future` would be set there and wake the task a turn later, for
    4 µs more.
 2. A call into the loop is a write to its socket, which the loop reads until it is empty; so there is one for many.
 3. As of a future, a cancellation that comes before the drain wins, and one that comes after it is the next step's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any

WakeTask = Callable[["LoopWaiter"], object]


class LoopWakeups:
    """The waiters of one loop that are due. `put` is for any thread, the rest for the loop's."""

    __slots__ = ("_due", "_scheduled", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._due: deque[LoopWaiter] = deque()
        self._scheduled = False

    def waiter(self) -> LoopWaiter:
        return LoopWaiter(self)

    def put(self, waiter: LoopWaiter) -> None:
        self._due.append(waiter)
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        try:
            self.loop.call_soon_threadsafe(self._drain)
        except RuntimeError:  # the loop has been closed: nobody waits there any more
            self._due.clear()

    def _drain(self) -> None:
        self._scheduled = False  # first: what is put from here on is either seen below or scheduled anew
        try:
            for _ in range(len(self._due)):
                if not self._due:  # a loop that ran inside of a task has taken them
                    break
                waiter = self._due.popleft()
                if self._due and not self._scheduled:
                    # The task may run this loop inside of its step (nest_asyncio, as in notebooks), and wait there for one of the others.
                    self._scheduled = True
                    self.loop.call_soon(self._drain)
                waiter.wake()
        finally:
            if self._due and not self._scheduled:  # a task left by KeyboardInterrupt or SystemExit
                self._schedule()


class LoopWaiter:
    """What one task waits for, once. `release` is for any thread, the rest for the loop's."""

    __slots__ = ("_asyncio_future_blocking", "_context", "_message", "_wake_task", "_wakeups", "cancelled")

    def __init__(self, wakeups: LoopWakeups) -> None:
        self._wakeups = wakeups
        self._asyncio_future_blocking = False
        self._wake_task: WakeTask | None = None
        self._context: Context | None = None
        self.cancelled, self._message = False, None

    def release(self) -> None:
        self._wakeups.put(self)

    def wake(self) -> None:
        wake_task, self._wake_task = self._wake_task, None
        if wake_task is not None and self._context is not None:
            self._context.run(wake_task, self)

    # -- what a task asks ----------------------------------------------------------------------------------------------------------

    def __await__(self) -> Generator[LoopWaiter, None, None]:
        self._asyncio_future_blocking = True
        yield self

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._wakeups.loop

    def add_done_callback(self, wake_task: WakeTask, *, context: Context) -> None:
        self._wake_task, self._context = wake_task, context

    def result(self) -> None:
        if self.cancelled:
            raise asyncio.CancelledError(*(() if self._message is None else (self._message,)))

    def cancel(self, msg: Any = None) -> bool:
        """False where the task takes its next step already."""
        wake_task, self._wake_task = self._wake_task, None
        if wake_task is None:
            return False
        self.cancelled, self._message = True, msg
        self._wakeups.loop.call_soon(wake_task, self, context=self._context)
        return True
