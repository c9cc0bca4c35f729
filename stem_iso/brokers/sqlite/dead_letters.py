"""Dead letters: one row per dead task, apart from its status, because it lives longer.

A replay is the task's next run under the same id: run + 1, attempt 0, no expiry, as new in its queue. Refused where another holds its lock
(`unique`), where the body is no envelope (`undecodable`), and where a task of this id is alive again (`active`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stem_iso.brokers.base import DeadFilter, DeadLetter, Replayed
from stem_iso.brokers.rules import after
from stem_iso.brokers.sqlite.connection import Row
from stem_iso.brokers.sqlite.counts import leave
from stem_iso.brokers.sqlite.notifications import Topic
from stem_iso.brokers.sqlite.rows import add_waiting, newest, unpack_error
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.unique import holder, take
from stem_iso.brokers.sqlite.values import count, data, is_text, moment, text
from stem_iso.task.envelope import Envelope, Undecodable, decode, encode, next_run

BATCH = 500  # per transaction: a replay of everything must not keep all others from writing

LETTER = "id, name, queue, reason, run, attempt, died, error, body"


def ids(turn: Transaction, which: DeadFilter, ttl: float) -> list[str]:
    """Oldest first; what has outlived `ttl` is not there any more."""
    return [row[0] for row in _select(turn, which, ttl, "id") if is_text(row[0])]


def letters(turn: Transaction, which: DeadFilter, ttl: float) -> list[Row]:
    """The same, whole."""
    return [row[:9] for row in _select(turn, which, ttl, LETTER)]


def _select(turn: Transaction, which: DeadFilter, ttl: float, columns: str) -> list[Row]:
    clauses = ["died > ?"]
    values: list[Any] = [turn.now - ttl]
    for clause, value in (("queue = ?", which.queue), ("name = ?", which.name), ("died >= ?", which.since)):
        if value is not None:
            clauses.append(clause)
            values.append(value)
    where = " AND ".join(clauses)
    if which.ids is None:
        return turn.all(f"SELECT {columns} FROM dead WHERE {where} ORDER BY died, number", values)
    wanted = [id for id in dict.fromkeys(which.ids) if is_text(id)]
    rows = turn.of_keys(f"SELECT {columns}, died, number FROM dead WHERE {where} AND id IN ({{keys}})", wanted, *values)
    return sorted(rows, key=lambda row: (moment(row[-2]) or 0.0, row[-1]))


def letter(row: Row) -> DeadLetter:
    id, name, queue, reason, run, attempt, died, error, body = row
    return DeadLetter(
        id=text(id),
        name=text(name),
        queue=text(queue),
        reason=text(reason),
        run=count(run),
        attempt=count(attempt),
        died_at=moment(died) or 0.0,
        error=unpack_error(error),
        body=data(body),
    )


def replay_all(turn: Transaction, which: DeadFilter, ttl: float, delay: float, most: int, dry_run: bool = False) -> list[Replayed]:
    """`most`: the largest envelope, bytes."""
    taken: set[str] = set()  # locks that a dry run would have taken by then
    return [_replay(turn, row, delay, most, dry_run, taken) for row in letters(turn, which, ttl)]


def _replay(turn: Transaction, row: Row, delay: float, most: int, dry_run: bool, taken: set[str]) -> Replayed:
    id, run, body = row[0], count(row[4]) + 1, data(row[8])
    try:
        envelope = next_run(decode(body), id, run, turn.now + max(0.0, delay))
    except Undecodable:
        return Replayed(text(id), run - 1, "undecodable")
    if not is_text(id):
        return Replayed(text(id), run - 1, "undecodable")  # nobody could ask for it afterwards
    if turn.one("SELECT 1 FROM task WHERE id = ? AND state <= 2", (id,)):
        return Replayed(id, run - 1, "active")
    if _held(turn, envelope, taken):
        return Replayed(id, run - 1, "unique")
    if not dry_run:
        revive(turn, after(envelope, letter(row), most))
    return Replayed(id, run)


def _held(turn: Transaction, envelope: Envelope, taken: set[str]) -> bool:
    if envelope.lock is None:
        return False
    held = holder(turn, envelope.lock) not in (None, envelope.id) or envelope.lock in taken
    taken.add(envelope.lock)
    return held


def revive(turn: Transaction, envelope: Envelope) -> None:
    """Put it in line as one that arrives now, in place of its status and its dead letter."""
    take(turn, envelope)
    # Asked before the row goes: its place in the list stays its own, so no other row may ever get that `seq`.
    known, following = turn.all("SELECT seq, coalesce(listed, seq) FROM task WHERE id = ?", (envelope.id,)), newest(turn) + 1
    leave(turn, [seq for seq, _ in known])
    turn.run("DELETE FROM task WHERE id = ?", (envelope.id,))
    add_waiting(turn, [(envelope, encode(envelope))])
    place = known[0][1] if known else following
    turn.run("UPDATE task SET seq = ?, listed = ? WHERE id = ?", (following, place, envelope.id))
    turn.run("DELETE FROM dead WHERE id = ?", (envelope.id,))
    turn.topics |= {Topic.WORK}


def purge(turn: Transaction, ids: Sequence[str]) -> int:
    return len(turn.of_keys("DELETE FROM dead WHERE id IN ({keys}) RETURNING id", ids))
