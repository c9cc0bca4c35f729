"""Pool of a producer's brokers, each lent to one thread at a time.

    with lending.lend() as broker:      an idle one, else a new one; back among the idle afterwards
        broker.publish(...)

Rules
 1. No lock: idle brokers wait in a deque, whose append and pop are atomic, so a fork in the middle leaves nothing locked in the child.
 2. A forked child starts with none, and holds on to the inherited ones without ever touching them: closing an inherited connection, or
    letting it be collected, could end the parent's.
 3. As many are open as threads that ever used one at the same time.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stem_iso.brokers.base import Broker


class BrokerPool:
    def __init__(self, open: Callable[[], Broker]) -> None:
        self._open, self._pid = open, os.getpid()
        self._idle: deque[Broker] = deque()  # owned by whoever popped it
        self._opened: list[Broker] = []  # every one of this process, so that none is collected in a child
        self._inherited: list[Broker] = []  # never touched again

    @contextmanager
    def lend(self) -> Iterator[Broker]:
        if self._pid != os.getpid():
            self._after_fork()
        try:
            broker = self._idle.pop()
        except IndexError:
            broker = self._open()
            self._opened.append(broker)
        pid = self._pid
        try:
            yield broker
        finally:
            if pid == self._pid:
                self._idle.append(broker)

    def close(self) -> None:
        """Close the idle ones; one that is lent is closed by nobody, and collected with this object."""
        if self._pid != os.getpid():
            self._after_fork()
        while self._idle:
            broker = self._idle.pop()
            self._opened.remove(broker)
            broker.close()

    def _after_fork(self) -> None:
        self._inherited += self._opened
        self._opened, self._idle, self._pid = [], deque(), os.getpid()
