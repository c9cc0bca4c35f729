"""Waits for results: one thread for one id, or one thread for many ids. Both listen first, then poll, then block until a wake-up.

Listening first closes the gap in which a task could end between the poll and the block.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from math import inf
from typing import TypeVar

from stem_iso.brokers.base import StatusRecord
from stem_iso.brokers.rules import ended, fewer_than, late
from stem_iso.brokers.sqlite import canvas, status
from stem_iso.brokers.sqlite.notifications import block
from stem_iso.brokers.sqlite.transaction import Database

T = TypeVar("T")


# -- one id ----------------------------------------------------------------------------------------------------------------------------


def wait(database: Database, poll: Callable[[], StatusRecord | None], id: str, timeout: float | None) -> StatusRecord:
    """The terminal status. Raises UnknownResult, TimeoutError."""
    return _until(database, lambda: ended(id, poll()), lambda: late(f"task {id} has", timeout), timeout)


def wait_members(database: Database, id: str, unended: int, timeout: float | None) -> None:
    """Until fewer than `unended` members of the group are still to end. Raises UnknownResult, TimeoutError."""

    def fewer() -> bool | None:
        return fewer_than(unended, id, database.read(lambda turn: canvas.unended(turn, id)))

    _until(database, fewer, lambda: late(f"{unended} members of group {id} have", timeout), timeout)


def _until(database: Database, poll: Callable[[], T | None], late: Callable[[], str], timeout: float | None) -> T:
    deadline = inf if timeout is None else time.monotonic() + timeout
    listener = database.done_listener()
    while True:
        if (found := poll()) is not None:
            return found
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(late())
        block(listener, left)


# -- many ids --------------------------------------------------------------------------------------------------------------------------


class SqliteResultWatch:
    """See `stem_iso.brokers.base.ResultWatch`. All ids are polled where something was committed, else only those that are new."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listener = database.done_listener()  # kept by the database, which closes it
        self._version = database.version()
        self._polled: set[str] = set()
        self.interval = self._listener.interval

    def fileno(self) -> int:
        return self._listener.fileno()

    def poll(self, waits: Mapping[str, str | None]) -> dict[str, StatusRecord | None]:
        notified, seen = self._listener.notified(), self._version
        self._version = self._database.version()  # read before the rows: what is committed after it is another version
        polled = list(waits) if notified or seen != self._version else [id for id in waits if id not in self._polled]
        found = self._database.read(lambda turn: status.ended(turn, polled)) if polled else {}
        self._polled = waits.keys() - found.keys()  # who asks again about what has ended is answered again
        return found

    def close(self) -> None:
        pass
