"""Changes of leased and waiting rows, decided elsewhere and written here for many rows at once.

    RowEnd     terminal: dead letter if it failed, lock released, body dropped: the row is now the status. Where that
               is wanted no longer (ttl 0, forgotten) the row goes as well
    Again      waits once more under the same envelope: given back, redelivered
    Replaced   waits once more under a new envelope: the next attempt

All ways to end go through here, so a lock, a dead letter or a canvas cannot be missed by one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stem_iso.brokers.sqlite import canvas, schema
from stem_iso.brokers.sqlite.notifications import Topic
from stem_iso.brokers.sqlite.rows import RowEnd, bury, close, with_meta
from stem_iso.brokers.sqlite.transaction import Transaction


class Again(NamedTuple):
    seq: int
    state: int  # READY or DELAYED
    at: float | None
    redeliveries: int
    meta: bytes | None = None  # None: as it was


class Replaced(NamedTuple):
    seq: int
    state: int
    at: float | None
    queue: str
    rank: int
    run: int
    attempt: int
    reason: str | None
    error: bytes | None
    visibility: float | None
    ttl: float | None
    meta: bytes | None
    progress: bytes | None
    body: bytes


def end(turn: Transaction, endings: Sequence[RowEnd], *, locked: bool, linked: bool) -> None:
    """`locked`: whether one of the rows may hold a unique lock; `linked`: be a part of a canvas."""
    if not endings:
        return
    failed = [(ending.seq, ending.reason or "failed", ending.error) for ending in endings if ending.state == schema.FAILED]
    if failed:
        _carry_meta(turn, [(ending.seq, ending.meta) for ending in endings if ending.state == schema.FAILED])
        bury(turn, failed)
    if locked:
        turn.of_keys(_UNLOCK, [ending.seq for ending in endings])
    if linked:
        endings = canvas.end(turn, endings)
    close(turn, [ending for ending in endings if ending.until > turn.now])
    gone = [ending.seq for ending in endings if ending.until <= turn.now]
    if gone:
        turn.of_keys("DELETE FROM task WHERE seq IN ({keys})", gone)
    turn.rings.add(Topic.DONE)


def again(turn: Transaction, rows: Sequence[Again]) -> None:
    if not rows:
        return
    _carry_meta(turn, [(row.seq, row.meta) for row in rows])
    turn.of_rows(_AGAIN, [row[:4] for row in rows])
    turn.rings.add(Topic.WORK)


def replace(turn: Transaction, rows: Sequence[Replaced]) -> None:
    if rows:
        turn.of_rows(_REPLACE, rows)
        turn.rings.add(Topic.WORK)


def _carry_meta(turn: Transaction, rows: Sequence[tuple[int, bytes | None]]) -> None:
    """Put what the handler wrote into the envelope that goes on: at its next attempt nobody looks into the status."""
    written = [row for row in rows if row[1] is not None]
    if written:
        turn.of_rows(_META, written)
    for seq, body, meta in turn.of_keys(
        "SELECT seq, body, meta FROM task WHERE meta IS NOT NULL AND seq IN ({keys})", [row[0] for row in rows]
    ):
        carried = with_meta(body, meta)
        if carried != body:
            turn.run("UPDATE task SET body = ? WHERE seq = ?", (carried, seq))


_META = "UPDATE task SET meta = v.column2 FROM (VALUES {rows}) AS v WHERE task.seq = v.column1"

# By key and holder: a lock that outlived `unique_for` may be another's by now.
_UNLOCK = "DELETE FROM lock WHERE (key, id) IN (SELECT lock, id FROM task WHERE lock IS NOT NULL AND seq IN ({keys}))"

_AGAIN = """
UPDATE task SET state = v.column2, at = v.column3, redeliveries = v.column4, boot = NULL, sequence = NULL, marked = 0,
  slot = NULL
FROM (VALUES {rows}) AS v WHERE task.seq = v.column1"""

_REPLACE = """
UPDATE task SET state = v.column2, at = v.column3, queue = v.column4, rank = v.column5, run = v.column6, attempt = v.column7,
  reason = v.column8, error = v.column9, visibility = v.column10, ttl = v.column11,
  meta = coalesce(v.column12, meta), progress = coalesce(v.column13, progress), body = v.column14,
  boot = NULL, sequence = NULL, marked = 0, slot = NULL, waits = NULL
FROM (VALUES {rows}) AS v WHERE task.seq = v.column1"""
