"""Records of workers: who is alive, from heartbeats. One is shown for 30 s after its last heartbeat, and kept while it holds a lease."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from stem_iso.brokers.base import WorkerInfo
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.values import moment, unpacked

WORKER_LIFE = 30.0  # seconds
# Who has been silent for so long, and holds nothing: the record of one that does says to its neighbours whose leases these are.
SILENT = "seen <= ? AND NOT EXISTS (SELECT 1 FROM task WHERE task.state = 2 AND task.boot = worker.boot)"

_decoder = msgspec.msgpack.Decoder(WorkerInfo)


def beat(turn: Transaction, worker: WorkerInfo) -> None:
    seen = replace(worker, seen_at=turn.now)
    turn.run("INSERT OR REPLACE INTO worker VALUES (?, ?, ?, ?)", (worker.id, worker.boot, turn.now, msgspec.msgpack.encode(seen)))


def remove(turn: Transaction, id: str) -> None:
    turn.run("DELETE FROM worker WHERE id = ?", (id,))


def remove_dead(turn: Transaction, dead: WorkerInfo) -> None:
    turn.run("DELETE FROM worker WHERE id = ? AND boot = ?", (dead.id, dead.boot))


def neighbours(turn: Transaction, machine: str) -> list[WorkerInfo]:
    rows = turn.all("SELECT info FROM worker ORDER BY id")
    found = [worker for row in rows if (worker := unpacked(_decoder, row[0])) is not None]  # one that nobody can read is nobody's to judge
    return [worker for worker in found if worker.machine == machine]


def workers(turn: Transaction) -> list[WorkerInfo]:
    rows = turn.all("SELECT info, seen FROM worker WHERE seen > ? ORDER BY id", (turn.now - WORKER_LIFE,))
    found = [(worker, moment(seen)) for info, seen in rows if (worker := unpacked(_decoder, info)) is not None]
    return [replace(worker, silent_for=WORKER_LIFE if seen is None else max(0.0, turn.now - seen)) for worker, seen in found]
