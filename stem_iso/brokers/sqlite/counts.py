"""Counts of what happens to tasks: a row per minute, queue and name, for a day.

publish, compose, fire ── add_enqueued ──> `enqueued`, a number of its own: no blob is read where tasks come
workers ── add_counts ──> `body`, all else, added to what is there
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from stem_iso.brokers.operations import COUNTS_LIFE, TaskCounts
from stem_iso.brokers.sqlite.connection import Row
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.values import count, is_count, is_text, unpacked
from stem_iso.task import histogram

MINUTE = 60.0
BATCH = 1000  # rows per sweep


class Body(msgspec.Struct, array_like=True):
    """What workers have counted. Not frozen: it is added to in place."""

    counts: dict[str, int] = {}
    wait: dict[int, int] = {}
    run: dict[int, int] = {}


_decoder = msgspec.msgpack.Decoder(Body)


def add_enqueued(turn: Transaction, rows: Sequence[Row]) -> None:
    """These tasks are new: (queue, name) of each."""
    minute = int(turn.now // MINUTE)
    if len(rows) == 1:
        _add_enqueued(turn, minute, rows[0], 1)
        return
    for key, many in Counter(rows).items():
        _add_enqueued(turn, minute, key, many)


def _add_enqueued(turn: Transaction, minute: int, key: Row, many: int) -> None:
    if not turn.run(_ENQUEUED, (many, minute, *key)).rowcount:
        turn.run("INSERT INTO counts (minute, queue, name, enqueued) VALUES (?, ?, ?, ?)", (minute, *key, many))
        _use(turn, key[0], minute)


_ENQUEUED = "UPDATE counts SET enqueued = enqueued + ? WHERE minute = ? AND queue = ? AND name = ?"


def _use(turn: Transaction, queue: str, minute: int) -> None:
    turn.run("INSERT OR REPLACE INTO used VALUES (?, ?)", (queue, max(turn.now, minute * MINUTE)))


def add_counts(turn: Transaction, counts: Sequence[TaskCounts]) -> None:
    for each in counts:
        key = (each.minute, each.queue, each.name)
        rows = turn.all("SELECT body FROM counts WHERE minute = ? AND queue = ? AND name = ?", key)
        body = (unpacked(_decoder, rows[0][0]) if rows else None) or Body({}, {}, {})
        for word, many in each.counts.items():
            if word != "enqueued":
                body.counts[word] = body.counts.get(word, 0) + many
        histogram.add(body.wait, each.wait)
        histogram.add(body.run, each.run)
        turn.run(_COUNTS, (*key, msgspec.msgpack.encode(body)))
        if not rows:
            _use(turn, each.queue, each.minute)


_COUNTS = """
INSERT INTO counts (minute, queue, name, body) VALUES (?, ?, ?, ?) ON CONFLICT (minute, queue, name) DO UPDATE SET body = excluded.body"""


def counts(turn: Transaction, since: int, until: int, queue: str | None, name: str | None) -> list[TaskCounts]:
    clauses = ["minute BETWEEN ? AND ?"]
    values: list[Any] = [since, until]
    for column, value in (("queue", queue), ("name", name)):
        if value is not None:
            clauses.append(f"{column} = ?")
            values.append(value)
    sql = f"SELECT minute, queue, name, enqueued, body FROM counts WHERE {' AND '.join(clauses)} ORDER BY minute, queue, name"
    return [_counted(*row) for row in turn.all(sql, values) if is_count(row[0]) and is_text(row[1]) and is_text(row[2])]


def _counted(minute: int, queue: str, name: str, enqueued: Any, body: Any) -> TaskCounts:
    found = unpacked(_decoder, body) or Body({}, {}, {})
    new = {"enqueued": count(enqueued)} if count(enqueued) else {}
    return TaskCounts(queue=queue, name=name, minute=minute, counts=new | found.counts, wait=found.wait, run=found.run)


STALE = "SELECT 1 FROM counts WHERE minute < ? LIMIT 1"


def oldest(now: float) -> int:
    """The first minute that is kept."""
    return int((now - COUNTS_LIFE) // MINUTE)


def sweep(turn: Transaction) -> int:
    sql = "DELETE FROM counts WHERE (minute, queue, name) IN (SELECT minute, queue, name FROM counts WHERE minute < ? LIMIT ?)"
    swept = turn.run(sql, (oldest(turn.now), BATCH)).rowcount
    return swept + turn.run("DELETE FROM used WHERE at <= ? OR at >= ''", (turn.now - COUNTS_LIFE,)).rowcount
