"""Event log: events of all workers for those who listen.

    emit ── somebody listens? ──> `event`, 10,000 rows, a minute old ── wake-up, read ──> SqliteEventStream
                └ nobody ─> dropped                                     a row of `listener`, renewed every 3 s, forgotten after 10 s

A listener that lags loses the oldest events, nobody else loses anything. The stream listens first, then reads, then blocks until a wake-up:
so no event falls between the read and the block.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from math import inf

from stem_iso.brokers.sqlite.notifications import Topic, block
from stem_iso.brokers.sqlite.transaction import Database, Transaction
from stem_iso.brokers.sqlite.values import count, data

LISTENER_LIFE = 10.0  # seconds
RENEW_LISTENER = LISTENER_LIFE / 3
EVENTS_KEPT, EVENTS_LIFE = 10_000, 60.0
READ = 500  # events per read


def listened(turn: Transaction) -> bool:
    return turn.one("SELECT 1 FROM listener WHERE until > ? LIMIT 1", (turn.now,)) is not None


def emit(turn: Transaction, events: Sequence[bytes]) -> None:
    turn.of_rows("INSERT INTO event (at, body) VALUES {rows}", [(turn.now, body) for body in events[-EVENTS_KEPT:]])
    turn.run("DELETE FROM event WHERE number <= ?", (position(turn) - EVENTS_KEPT,))
    turn.topics.add(Topic.EVENTS)


def position(turn: Transaction) -> int:
    """The number of the newest event there ever was."""
    return count(turn.one("SELECT seq FROM sqlite_sequence WHERE name = 'event'"))


def renew_listener(turn: Transaction, id: str) -> None:
    turn.run("INSERT OR REPLACE INTO listener VALUES (?, ?)", (id, turn.now + LISTENER_LIFE))


def drop_listener(turn: Transaction, id: str) -> None:
    turn.run("DELETE FROM listener WHERE id = ?", (id,))


def events_after(turn: Transaction, number: int) -> list[tuple[int, bytes]]:
    rows = turn.all("SELECT number, body FROM event WHERE number > ? ORDER BY number LIMIT ?", (number, READ))
    return [(row[0], data(row[1])) for row in rows]


class SqliteEventStream:
    """Events from the moment it is made, as an iterator or as an `EventWatch`. The row that says so is renewed while somebody reads."""

    def __init__(self, database: Database, name: str, timeout: float | None) -> None:
        self._database, self._name, self._timeout = database, name, timeout
        self._listener = database.listener(Topic.EVENTS)
        self._number: int = database.write(self._register)
        self._renewed = time.monotonic()

    def _register(self, turn: Transaction) -> int:
        renew_listener(turn, self._name)
        return position(turn)

    def events(self) -> Iterator[bytes]:
        try:
            while batch := self._next(self._timeout):
                for number, body in batch:
                    self._number = number
                    yield body
        finally:
            self.close()

    def poll(self, timeout: float | None) -> list[bytes]:
        batch = self._next(timeout)
        if batch:
            self._number = batch[-1][0]
        return [body for _, body in batch]

    def _next(self, timeout: float | None) -> list[tuple[int, bytes]]:
        """The next ones; empty after `timeout` seconds without any."""
        deadline = inf if timeout is None else time.monotonic() + timeout
        while True:
            self._renew()
            if found := self._database.read(lambda turn: events_after(turn, self._number)):
                return found
            left = deadline - time.monotonic()
            if left <= 0:
                return []
            block(self._listener, left)

    def _renew(self) -> None:
        if time.monotonic() - self._renewed > RENEW_LISTENER:
            self._renewed = time.monotonic()
            self._database.write(lambda turn: renew_listener(turn, self._name))

    def close(self) -> None:
        self._listener.close()
        self._database.write(lambda turn: drop_listener(turn, self._name))
