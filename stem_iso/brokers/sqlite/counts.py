"""Counts of what happens to tasks: a row per minute, queue and name, for a day.

    workers ── add_counts ──> `body`, added to what is there
    a task comes: nothing      rows above the mark ── advance, by whoever counts ──> `enqueued`; the mark moves up
                               a row above the mark goes, or gets a new `seq` ── leave ──> `enqueued`
    counts = what is written + the rows above the mark

What comes is not counted as it comes: that would write one page more for each, a sixth of the price of a publish. The rows are there
themselves, in the order in which they came, so a mark (`fact`, name `counted`) says up to which `seq` they have been counted. Rules:

 1. Every row up to the mark is counted, none above it. `listed` rows are none of them: they have been there before.
 2. A row above the mark is counted before it is deleted or moved: `drop`, `leave`.
 3. The mark is never above the newest row, which would hide the next ones: whoever deletes moves it down (`drop`).

An older process keeps neither 2 nor 3: what it deletes early is not counted, and what comes below a mark that it has left too high is not
either, until somebody counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from stem_iso.brokers.operations import COUNTS_LIFE, TaskCounts
from stem_iso.brokers.sqlite import schema
from stem_iso.brokers.sqlite.connection import Row
from stem_iso.brokers.sqlite.rows import newest
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.values import count, is_count, is_text, text, unpacked
from stem_iso.task import histogram

MINUTE = 60.0
ADVANCE = 20_000  # rows in one turn: some 10 ms
BATCH = 1000  # rows per sweep


class CountedByWorkers(msgspec.Struct, array_like=True):
    """Not frozen: it is added to in place."""

    counts: dict[str, int]
    wait: dict[int, int]
    run: dict[int, int]


_decoder = msgspec.msgpack.Decoder(CountedByWorkers)


# -- what comes ------------------------------------------------------------------------------------------------------------------------


def mark(turn: Transaction) -> int:
    """One that cannot be read, or is lost, is at the newest row: what came unseen is not counted."""
    value = turn.one("SELECT value FROM fact WHERE name = 'counted'")
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 20 else newest(turn)


def _move_mark(turn: Transaction, to: int) -> None:
    turn.run(schema.WRITE_FACT, ("counted", str(to)))


# One that does not say when it came, or says that it is still to come, is counted in the minute in which it is seen.
_MINUTE = "CAST(CASE WHEN enqueued < :now + 60 THEN enqueued ELSE :now END / 60 AS INTEGER)"
_NEW = f"SELECT {_MINUTE}, queue, name, count(*) FROM task WHERE listed IS NULL AND size IS NULL AND "


def _new(turn: Transaction, above: int, upto: int) -> list[Row]:
    values = {"now": turn.now, "above": above, "upto": upto}
    return turn.all(_NEW + "seq > :above AND seq <= :upto GROUP BY 1, 2, 3", values)


def advance(turn: Transaction) -> bool:
    """Count some of what has come; whether there is more."""
    above, last = mark(turn), newest(turn)
    upto = min(last, above + ADVANCE)
    if upto != above:
        _add(turn, _new(turn, above, upto))
        _move_mark(turn, upto)
    return upto < last


def behind(turn: Transaction) -> bool:
    """Whether more has come than may be counted while somebody only looks."""
    return not turn.is_view() and newest(turn) - mark(turn) > ADVANCE


def _add(turn: Transaction, rows: Sequence[Row]) -> None:
    first = oldest(turn.now)
    for minute, queue, name, many in rows:
        if minute < first or not is_text(queue) or not is_text(name):
            continue
        if not turn.run(_ENQUEUED, (many, minute, queue, name)).rowcount:
            turn.run("INSERT INTO counts (minute, queue, name, enqueued) VALUES (?, ?, ?, ?)", (minute, queue, name, many))
            _use(turn, queue, minute)


_ENQUEUED = "UPDATE counts SET enqueued = enqueued + ? WHERE minute = ? AND queue = ? AND name = ?"


def _use(turn: Transaction, queue: str, minute: int) -> None:
    turn.run(_USE, (queue, minute * MINUTE))


_USE = "INSERT INTO used VALUES (?, ?) ON CONFLICT (queue) DO UPDATE SET at = max(at, excluded.at)"


def leave(turn: Transaction, seqs: Sequence[int]) -> None:
    """These rows go, or get another `seq`."""
    above = mark(turn)
    for seq in seqs:
        if seq > above:
            _add(turn, turn.all(_NEW + "seq = :seq GROUP BY 1, 2, 3", {"now": turn.now, "seq": seq}))


def drop(turn: Transaction, seqs: Sequence[int]) -> None:
    """Delete these rows."""
    if not seqs:
        return
    leave(turn, seqs)
    turn.of_keys("DELETE FROM task WHERE seq IN ({keys})", seqs)
    last = newest(turn)
    if last < mark(turn):
        _move_mark(turn, last)


# -- what workers count ----------------------------------------------------------------------------------------------------------------


def add_counts(turn: Transaction, counts: Sequence[TaskCounts]) -> None:
    for each in counts:
        key = (each.minute, each.queue, each.name)
        rows = turn.all("SELECT body FROM counts WHERE minute = ? AND queue = ? AND name = ?", key)
        body = (unpacked(_decoder, rows[0][0]) if rows else None) or CountedByWorkers({}, {}, {})
        for word, many in each.counts.items():
            if word != "enqueued":
                body.counts[word] = body.counts.get(word, 0) + many
        histogram.add(body.wait, each.wait)
        histogram.add(body.run, each.run)
        turn.run(_COUNTS, (*key, msgspec.msgpack.encode(body)))
        if not rows:
            _use(turn, each.queue, each.minute)
    advance(turn)


_COUNTS = """
INSERT INTO counts (minute, queue, name, body) VALUES (?, ?, ?, ?) ON CONFLICT (minute, queue, name) DO UPDATE SET body = excluded.body"""


# -- questions -------------------------------------------------------------------------------------------------------------------------


def counts(turn: Transaction, since: int, until: int, queue: str | None, name: str | None) -> list[TaskCounts]:
    clauses = ["minute BETWEEN ? AND ?"]
    values: list[Any] = [since, until]
    for column, value in (("queue", queue), ("name", name)):
        if value is not None:
            clauses.append(f"{column} = ?")
            values.append(value)
    sql = f"SELECT minute, queue, name, enqueued, body FROM counts WHERE {' AND '.join(clauses)}"
    found = {row[:3]: (count(row[3]), unpacked(_decoder, row[4])) for row in turn.all(sql, values) if is_count(row[0])}
    for minute, *where, many in [] if turn.is_view() else _new(turn, mark(turn), newest(turn)):
        if since <= minute <= until and queue in (None, where[0]) and name in (None, where[1]):
            enqueued, body = found.get((minute, *where), (0, None))
            found[(minute, *where)] = (enqueued + many, body)
    return [_counted(key, *found[key]) for key in sorted(found, key=lambda key: (key[0], text(key[1]), text(key[2])))]


def _counted(key: Row, enqueued: int, body: CountedByWorkers | None) -> TaskCounts:
    minute, queue, name = key
    new = {"enqueued": enqueued} if enqueued else {}
    if body is None:
        return TaskCounts(queue=text(queue), name=text(name), minute=minute, counts=new)
    return TaskCounts(queue=text(queue), name=text(name), minute=minute, counts=new | body.counts, wait=body.wait, run=body.run)


def used(turn: Transaction) -> set[str]:
    """Queues of which anything was counted within a day, or has come since."""
    rows = turn.all("SELECT queue FROM used WHERE at > ?", (turn.now - COUNTS_LIFE,))
    if not turn.is_view():
        rows += turn.all("SELECT DISTINCT queue FROM (SELECT queue FROM task WHERE seq > ? LIMIT ?)", (mark(turn), ADVANCE))
    return {text(queue) for (queue,) in rows if queue != ""}


# -- expiry ----------------------------------------------------------------------------------------------------------------------------

STALE = "SELECT 1 FROM counts WHERE minute < ? LIMIT 1"


def oldest(now: float) -> int:
    """The first minute that is kept."""
    return int((now - COUNTS_LIFE) // MINUTE)


def sweep(turn: Transaction) -> int:
    sql = "DELETE FROM counts WHERE (minute, queue, name) IN (SELECT minute, queue, name FROM counts WHERE minute < ? LIMIT ?)"
    swept = turn.run(sql, (oldest(turn.now), BATCH)).rowcount
    return swept + turn.run("DELETE FROM used WHERE at <= ? OR at >= ''", (turn.now - COUNTS_LIFE,)).rowcount
