"""The end of a row: what is written where a task has ended, whatever ended it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stem_iso.brokers.sqlite.transaction import Transaction


class RowEnd(NamedTuple):
    """`until` is when the status expires, wall clock."""

    seq: int
    state: int
    until: float
    reason: str | None = None
    error: bytes | None = None
    result: bytes | None = None
    meta: bytes | None = None  # None: as it was
    progress: bytes | None = None  # None: as it was


def close(turn: Transaction, endings: Sequence[RowEnd]) -> None:
    """The row is the status from now on."""
    turn.of_rows(_END, [(*ending, turn.now) for ending in endings])


def bury(turn: Transaction, rows: Sequence[tuple[int, str, bytes | None]]) -> None:
    """A dead letter for each: (seq, reason, error). Before they are closed, which drops their bodies."""
    turn.of_rows(_BURY, [(turn.now, *row) for row in rows])


# column1, column2, …: how SQLite names the columns of a VALUES list.
_END = """
UPDATE task SET state = v.column2, at = v.column3, reason = v.column4, error = v.column5, result = v.column6,
  meta = coalesce(v.column7, meta), progress = coalesce(v.column8, progress), finished = v.column9,
  sequence = NULL, marked = 0, revoked = 0, lock = NULL, slot = NULL, waits = NULL, body = NULL
FROM (VALUES {rows}) AS v WHERE task.seq = v.column1"""

_BURY = """
INSERT INTO dead (id, name, queue, reason, run, attempt, died, lock, error, body)
SELECT id, name, queue, v.column3, run, attempt, v.column1, lock, v.column4, body
FROM (VALUES {rows}) AS v CROSS JOIN task ON task.seq = v.column2
WHERE true ON CONFLICT (id) DO UPDATE SET name = excluded.name, queue = excluded.queue, reason = excluded.reason, run = excluded.run,
  attempt = excluded.attempt, died = excluded.died, lock = excluded.lock, error = excluded.error, body = excluded.body
"""
