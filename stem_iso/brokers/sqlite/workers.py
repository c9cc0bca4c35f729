"""Workers and their events: who lives, and what happens in whom.

Events are kept only while somebody listens, at most 10,000 of them and for a minute: a listener that lags loses the oldest, nobody else
loses anything. A listener is a row with a short life that its reader renews, so a killed one is forgotten after 10 s.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from stem_iso.brokers.base import WorkerInfo
from stem_iso.brokers.sqlite.notifications import Topic
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.values import count, data, unpacked

LISTENER_LIFE = 10.0
EVENTS_KEPT, EVENTS_LIFE = 10_000, 60.0
WORKER_LIFE = 30.0
# Who has been silent for so long, and holds nothing: the record of one that does says to its neighbours whose leases these are.
SILENT = "seen <= ? AND NOT EXISTS (SELECT 1 FROM task WHERE task.state = 2 AND task.boot = worker.boot)"
READ = 500  # events per look

_decoder = msgspec.msgpack.Decoder(WorkerInfo)


def beat(turn: Transaction, worker: WorkerInfo) -> None:
    seen = msgspec.structs.replace(worker, seen_at=turn.now)
    turn.run("INSERT OR REPLACE INTO worker VALUES (?, ?, ?, ?)", (worker.id, worker.boot, turn.now, msgspec.msgpack.encode(seen)))


def goodbye(turn: Transaction, id: str) -> None:
    turn.run("DELETE FROM worker WHERE id = ?", (id,))


def unregister(turn: Transaction, dead: WorkerInfo) -> None:
    turn.run("DELETE FROM worker WHERE id = ? AND boot = ?", (dead.id, dead.boot))


def neighbours(turn: Transaction, machine: str) -> list[WorkerInfo]:
    rows = turn.all("SELECT info FROM worker ORDER BY id")
    found = [worker for row in rows if (worker := unpacked(_decoder, row[0])) is not None]  # one that nobody can read is nobody's to judge
    return [worker for worker in found if worker.machine == machine]


def workers(turn: Transaction) -> list[WorkerInfo]:
    rows = turn.all("SELECT info FROM worker WHERE seen > ? ORDER BY id", (turn.now - WORKER_LIFE,))
    return [worker for row in rows if (worker := unpacked(_decoder, row[0])) is not None]


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
