"""Waiting of a thread: for work, for a result, for events. All of one shape: listen first, then look, then sleep until a wake-up.

Listening first closes the gap in which something could happen between the look and the sleep.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator, Mapping
from math import inf
from typing import TypeVar

from stem_iso.brokers.base import StatusRecord
from stem_iso.brokers.rules import ended, fewer_than, late
from stem_iso.brokers.sqlite import canvas, status, workers
from stem_iso.brokers.sqlite.notifications import Listener, Topic
from stem_iso.brokers.sqlite.transaction import Database, Transaction

T = TypeVar("T")

RENEW_LISTENER = workers.LISTENER_LIFE / 3


class SqliteWatch:
    """A worker's: woken by new work and by orders. Commits without a wake-up are seen by `data_version`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listener = database.listener(Topic.WORK)
        self._seen = database.version()
        self.interval = self._listener.interval

    def fileno(self) -> int:
        return self._listener.fileno()

    def changed(self) -> bool:
        notified = self._listener.notified()
        seen, self._seen = self._seen, self._database.version()  # read after the wake-up, which it thereby covers
        return notified or seen != self._seen

    def close(self) -> None:
        self._listener.close()


class SqliteEnds:
    """See `stem_iso.brokers.base.Ends`. All are asked about where something was committed, else only those that are new."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listener = database.done_listener()  # kept by the database, which closes it
        self._version = database.version()
        self._looked: set[str] = set()
        self.interval = self._listener.interval

    def fileno(self) -> int:
        return self._listener.fileno()

    def look(self, waits: Mapping[str, str | None]) -> dict[str, StatusRecord | None]:
        notified, seen = self._listener.notified(), self._version
        self._version = self._database.version()  # read before the rows: what is committed after it is another version
        asked = list(waits) if notified or seen != self._version else [id for id in waits if id not in self._looked]
        found = self._database.read(lambda turn: status.ended(turn, asked)) if asked else {}
        self._looked = waits.keys() - found.keys()  # who asks again about what has ended is answered again
        return found

    def close(self) -> None:
        pass


def park(listener: Listener, seconds: float) -> None:
    """Until a wake-up, at most `seconds`, and never longer than the listener's interval."""
    poll = select.poll()
    poll.register(listener.fileno(), select.POLLIN)
    poll.poll(max(0.0, min(seconds, listener.interval)) * 1000)
    listener.notified()


def wait(database: Database, look: Callable[[], StatusRecord | None], id: str, timeout: float | None) -> StatusRecord:
    """The terminal status. Raises UnknownResult, TimeoutError."""

    return _until(database, lambda: ended(id, look()), lambda: late(f"task {id} has", timeout), timeout)


def wait_members(database: Database, id: str, unended: int, timeout: float | None) -> None:
    """Until fewer than `unended` members of the group are still to end. Raises UnknownResult, TimeoutError."""

    def fewer() -> bool | None:
        return fewer_than(unended, id, database.read(lambda turn: canvas.unended(turn, id)))

    _until(database, fewer, lambda: late(f"{unended} members of group {id} have", timeout), timeout)


def _until(database: Database, look: Callable[[], T | None], late: Callable[[], str], timeout: float | None) -> T:
    deadline = inf if timeout is None else time.monotonic() + timeout
    listener = database.done_listener()
    while True:
        if (found := look()) is not None:
            return found
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(late())
        park(listener, left)


class SqliteEventStream:
    """Events from the moment it is made. The row that says so is renewed while somebody reads."""

    def __init__(self, database: Database, name: str, timeout: float | None) -> None:
        self._database, self._name, self._timeout = database, name, timeout
        self._listener = database.listener(Topic.EVENTS)
        self._number: int = database.write(self._register)
        self._renewed = time.monotonic()

    def _register(self, turn: Transaction) -> int:
        workers.renew_listener(turn, self._name)
        return workers.position(turn)

    def events(self) -> Iterator[bytes]:
        try:
            while batch := self._next():
                for number, body in batch:
                    self._number = number
                    yield body
        finally:
            self.close()

    def _next(self) -> list[tuple[int, bytes]]:
        """The next ones; empty after `timeout` seconds without any."""
        deadline = inf if self._timeout is None else time.monotonic() + self._timeout
        while True:
            self._renew()
            if found := self._database.read(lambda turn: workers.events_after(turn, self._number)):
                return found
            left = deadline - time.monotonic()
            if left <= 0:
                return []
            park(self._listener, left)

    def _renew(self) -> None:
        if time.monotonic() - self._renewed > RENEW_LISTENER:
            self._renewed = time.monotonic()
            self._database.write(lambda turn: workers.renew_listener(turn, self._name))

    def close(self) -> None:
        self._listener.close()
        self._database.write(lambda turn: workers.drop_listener(turn, self._name))
