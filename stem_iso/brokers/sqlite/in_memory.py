"""The store behind `memory://`: one in-memory database for the threads of one process, owned by the `Stem` whose URL it is.

Every broker object opened with the same `MemoryStore` sees the same tasks. A forked child gets a store of its own, empty: what it enqueues
is for workers of the child, as its copy of the parent's tasks would otherwise run twice.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakSet

from stem_iso.brokers.sqlite.clock import SYSTEM, StoreClock
from stem_iso.brokers.sqlite.connection import Connection, prepare
from stem_iso.brokers.sqlite.notifications import Listener, PipeListener, Topic
from stem_iso.brokers.sqlite.transaction import Transaction

T = TypeVar("T")


class MemoryStore:
    """Make one per application and pass it to each `open_broker`. It lives as long as it is referenced."""

    def __init__(self, clock: StoreClock = SYSTEM) -> None:
        self._clock = clock
        self._inherited: list[Connection] = []  # closing what a fork copied might wait for a thread that is not there
        self._forget()

    def _forget(self) -> None:
        self._mutex = threading.Lock()  # guards all below
        self._connection: Connection | None = None
        # Weak: who drops a listener unclosed leaves nothing here.
        self._listeners: dict[Topic, WeakSet[PipeListener]] = {topic: WeakSet() for topic in Topic}
        self._pid = os.getpid()

    def _ours(self) -> threading.Lock:
        if self._pid != os.getpid():
            if self._connection is not None:
                self._inherited.append(self._connection)
            self._forget()
        return self._mutex

    def turn(self, begin: str | None, work: Callable[[Transaction], T]) -> T:
        """`begin`: None where the work is a single statement."""
        with self._ours():
            connection = self._connection or self._open()
            turn = Transaction(connection, self._clock)
            answer = connection.single(lambda: work(turn)) if begin is None else connection.transact(begin, lambda: work(turn))
            for topic in turn.topics:
                for listener in self._listeners[topic]:
                    listener.notify()
            return answer

    def _open(self) -> Connection:
        connection = Connection(":memory:")
        prepare(connection, self._clock, "normal", file=False)
        self._connection = connection
        return connection

    def listener(self, topic: Topic) -> Listener:
        with self._ours():
            listener = PipeListener(lambda listener: self._drop(topic, listener))
            self._listeners[topic].add(listener)
            return listener

    def _drop(self, topic: Topic, listener: PipeListener) -> None:
        with self._ours():
            self._listeners[topic].discard(listener)


class MemoryDatabase:
    """One user's view of a `MemoryStore`."""

    url = "memory://"

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._done: tuple[int, Listener] | None = None  # with the process it was made in

    def write(self, work: Callable[[Transaction], T], *, single: bool = False) -> T:
        return self._store.turn(None if single else "BEGIN IMMEDIATE", work)

    def read(self, work: Callable[[Transaction], T], *, single: bool = False) -> T:
        return self._store.turn(None if single else "BEGIN", work)

    def version(self) -> int:
        return 0  # every commit wakes: nobody can be killed between the two and leave the others alive

    def listener(self, topic: Topic) -> Listener:
        return self._store.listener(topic)

    def done_listener(self) -> Listener:
        if self._done is None or self._done[0] != os.getpid():
            self._done = (os.getpid(), self._store.listener(Topic.DONE))
        return self._done[1]

    def shrink(self) -> None:
        pass  # SQLite reuses the pages

    def migrate(self) -> tuple[int, int] | None:
        return None

    def twin(self) -> MemoryDatabase:
        return MemoryDatabase(self._store)

    def close(self) -> None:
        if self._done is not None and self._done[0] == os.getpid():
            self._done[1].close()
        self._done = None
