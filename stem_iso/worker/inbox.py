"""The inbox of the consumer: a deque of messages, and an eventfd that is written only while the consumer is parked.

    engine thread, handlers, stop() ── put ──> deque ── take ──> consumer
                                         └─ eventfd, if it is parked

Rule: the consumer sets `_parked` *before* it looks at the deque a last time, and a sender reads `_parked` *after* it has put. So one of the
two sees the other, and no message waits for the end of a park. A busy consumer costs its senders no system call.

Where messages may wait for the end of a batch window, the consumer sets a `quorum` and parks for a millisecond at most: one wake-up serves
many.
"""

from __future__ import annotations

import os
import select
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """Any thread may `put`; one thread takes and parks."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._parked = False
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._eventfd, select.POLLIN)
        self._closed = False
        self.quorum = 1  # written by the consumer before it parks

    def put(self, item: T) -> None:
        """The item may wait in a batch window, until `quorum` items are there or the park is over."""
        self._items.append(item)
        if self._parked and len(self._items) >= self.quorum:
            self._wake()

    def put_now(self, item: T) -> None:
        self._items.append(item)
        if self._parked:
            self._wake()

    def _wake(self) -> None:
        if not self._closed:
            self._parked = False
            os.eventfd_write(self._eventfd, 1)

    def take(self) -> T | None:
        return self._items.popleft() if self._items else None

    def __len__(self) -> int:
        return len(self._items)

    def watch(self, fd: int) -> None:
        self._poll.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        self._poll.unregister(fd)

    def park(self, seconds: float) -> list[int]:
        """Sleep until something is put, a watched descriptor is readable, or time is up. Returns the readable ones."""
        self._parked = True
        try:
            events = self._poll.poll(0 if len(self._items) >= self.quorum else max(0, seconds) * 1000)
        finally:
            self._parked = False
        ready = [fd for fd, _ in events]
        if self._eventfd in ready:
            os.eventfd_read(self._eventfd)
            ready.remove(self._eventfd)
        return ready

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._eventfd)

    def __del__(self) -> None:
        self.close()  # of a worker that was made, and never started
