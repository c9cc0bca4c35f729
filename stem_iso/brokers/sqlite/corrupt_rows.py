"""Rows that cannot be delivered, because a column of them holds what it cannot hold: each becomes a dead letter as it stands.

    lease, promote, reclaim ── a fault? ──> bury ──> dead letter, status `failed`, reason `undecodable`, end notice; neighbours go on

A replay makes a new row of the envelope, which is in the row's body and mostly sound: nothing that can still be read is thrown away. The
body itself is not looked at here: that it is no envelope is found out by the worker that decodes it, and ends the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stem_iso.brokers.sqlite import end_notices, schema
from stem_iso.brokers.sqlite.rate_limits import pull
from stem_iso.brokers.sqlite.rows import RowEnd, pack, undecodable
from stem_iso.brokers.sqlite.settle import end
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.values import is_count, is_text, seconds
from stem_iso.task.policy import RESULT_TTL

MOST = 500  # rows per look

Fault = tuple[int, str]  # the row's `seq`, and what is wrong with it


def is_common(id: Any, name: Any, counts: tuple[Any, ...], rest: tuple[Any, ...]) -> bool:
    """Whether a row is certainly sound, as nearly all are: a quick look, which spares them `fault`. `rest` are columns that may be NULL."""
    return (
        type(id) is type(name) is str
        and id.isascii()
        and id.isprintable()
        and name.isascii()
        and id != ""
        and rest == (None,) * len(rest)
        and all(type(count) is int and 0 <= count < 1_000 for count in counts)
    )


def fault(columns: dict[str, Any]) -> str | None:
    """What is wrong with a row that is to be delivered; None where it is sound."""
    for name, value in columns.items():
        if not SOUND[name](value):
            return f"its column {name} holds {str(value)[:60]!r}"
    return None


def _optional_text(value: Any) -> bool:
    return value is None or is_text(value)


SOUND = {
    "id": lambda value: isinstance(value, str) and value != "" and value.isprintable(),  # surrogates are not
    "name": is_text,
    "rank": lambda value: isinstance(value, int),
    "run": is_count,
    "attempt": is_count,
    "redeliveries": is_count,
    "visibility": lambda value: value is None or seconds(value) is not None,
    "lock": _optional_text,
}


def never_due(turn: Transaction, queue: str) -> list[Fault]:
    """Delayed rows that no clock will ever make ready. Two statements, each answered by the index."""
    rows = turn.all("SELECT seq, at FROM task WHERE state = 1 AND queue = ? AND at IS NULL LIMIT ?", (queue, MOST))
    rows += turn.all("SELECT seq, at FROM task WHERE state = 1 AND queue = ? AND at >= '' LIMIT ?", (queue, MOST))
    return [(seq, f"its due time is {str(at)[:60]!r}") for seq, at in rows]


def add_dead_letters(turn: Transaction, faults: Sequence[Fault]) -> None:
    if not faults:
        return
    seqs = [seq for seq, _ in faults]
    buckets = [row[0] for row in turn.of_keys("SELECT coalesce(slot, waits) FROM task WHERE seq IN ({keys})", seqs)]
    errors = {seq: pack(undecodable(what)) for seq, what in faults}
    for seq, error in errors.items():
        end_notices.note(turn, [seq], schema.FAILED, "undecodable", error)
    # Where the id or the key is what is damaged, the two no longer find each other.
    turn.of_keys("DELETE FROM lock WHERE id IN (SELECT id FROM task WHERE seq IN ({keys}))", seqs)
    turn.of_keys(_ORPHANS, seqs)
    until = turn.now + RESULT_TTL
    endings = [RowEnd(seq, schema.FAILED, until, "undecodable", error) for seq, error in errors.items()]
    end(turn, endings, locked=True, linked=True)
    pull(turn, [bucket for bucket in buckets if bucket is not None])


_ORPHANS = """
DELETE FROM lock WHERE key IN (SELECT lock FROM task WHERE seq IN ({keys}))
  AND NOT EXISTS (SELECT 1 FROM task WHERE task.id = lock.id AND task.state <= 2)"""
