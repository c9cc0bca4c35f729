"""Retry: what failed or was cancelled runs again under its id, from the envelope that its row has kept."""

from __future__ import annotations

from stem_iso.brokers.base import Replayed
from stem_iso.brokers.rules import after
from stem_iso.brokers.sqlite import schema
from stem_iso.brokers.sqlite.dead_letters import revive
from stem_iso.brokers.sqlite.rows import SELECT, record, with_meta
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.unique import ALIVE, holder
from stem_iso.brokers.sqlite.values import count, data, is_text
from stem_iso.task.envelope import Envelope, Undecodable, decode, next_run


def retry(turn: Transaction, id: str, most: int) -> Replayed | None:
    """`most`: the largest envelope, bytes."""
    rows = turn.all(_KEPT, (id, turn.now)) if is_text(id) else []
    if not rows:
        return None
    state, run, canvas, meta, body = rows[0]
    run = count(run)
    if state in ALIVE or state == schema.SUCCEEDED:
        return Replayed(id, run, "active" if state in ALIVE else "succeeded")
    if canvas is not None or body is None:
        return Replayed(id, run, "no-envelope" if canvas is None else "canvas")
    try:
        envelope = next_run(decode(data(with_meta(body, meta))), id, run + 1, turn.now)
    except Undecodable:
        return Replayed(id, run, "undecodable")
    if envelope.lock is not None and holder(turn, envelope.lock) not in (None, id):
        return Replayed(id, run, "unique")
    revive(turn, after_its_end(turn, envelope, most))
    return Replayed(id, run + 1)


def after_its_end(turn: Transaction, envelope: Envelope, most: int) -> Envelope:
    """The next run of a task whose row is still its status."""
    (row,) = turn.all(SELECT + "WHERE task.id = ?", (envelope.id,))
    return after(envelope, record(row), most)


_KEPT = "SELECT state, run, canvas, meta, body FROM task WHERE id = ? AND (state <= 2 OR at > ?)"
