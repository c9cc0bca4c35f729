"""Changes to one task by hand: run it now, edit its arguments.

    run_now   DELAYED until a time of its own ─> READY, in line as one that comes now
    edit      waits ─> the same place, the same due time, its next run      failed, cancelled ─> as retried      else refused

One that waits at a limit's bucket leaves that line when it is edited: its key may be another one now, so it asks anew. One that is held by
a pause stays held.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from stem_iso.brokers.base import Replayed
from stem_iso.brokers.sqlite import schema
from stem_iso.brokers.sqlite.counts import leave
from stem_iso.brokers.sqlite.dead_letters import revive
from stem_iso.brokers.sqlite.notifications import Topic
from stem_iso.brokers.sqlite.pauses import is_held
from stem_iso.brokers.sqlite.rate_limits import pull
from stem_iso.brokers.sqlite.retry import after_its_end
from stem_iso.brokers.sqlite.rows import newest, with_meta
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.unique import holder
from stem_iso.brokers.sqlite.values import count, data, is_text
from stem_iso.task.attempt_history import fitted
from stem_iso.task.envelope import Envelope, Undecodable, decode, encode, next_run

WAITS = (schema.READY, schema.DELAYED)


def run_now(turn: Transaction, id: str) -> Replayed | None:
    rows = turn.all("SELECT seq, state, run, at, waits, body FROM task WHERE id = ? AND (state <= 2 OR at > ?)", _asked(id, turn))
    if not rows:
        return None
    seq, state, run, at, waits, body = rows[0]
    if state != schema.DELAYED or waits is not None or (isinstance(at, int | float) and at <= turn.now):
        return Replayed(id, count(run), "not-delayed")
    with suppress(Undecodable):  # its worker finds that out
        body = encode(msgspec.structs.replace(decode(data(body)), not_before=turn.now))
    leave(turn, [seq])
    turn.run(_RUN_NOW, (newest(turn) + 1, turn.now, body, seq))
    turn.topics.add(Topic.WORK)
    return Replayed(id, count(run))


_RUN_NOW = "UPDATE task SET listed = coalesce(listed, seq), seq = ?, state = 0, at = ?, body = ? WHERE seq = ?"


def edit(turn: Transaction, id: str, run: int, args: bytes, most: int) -> Replayed | None:
    """`most`: the largest envelope, bytes."""
    rows = turn.all(_EDITED, _asked(id, turn))
    if not rows:
        return None
    seq, state, now_run, canvas, waits, meta, body = rows[0]
    now_run = count(now_run)
    refused = _refused(state, now_run == run, canvas, body)
    if refused is not None:
        return Replayed(id, now_run, refused)
    try:
        envelope = _edited(decode(data(with_meta(body, meta))), id, now_run + 1, args, None if state in WAITS else turn.now)
    except Undecodable:
        return Replayed(id, now_run, "undecodable")
    if state not in WAITS:
        envelope = after_its_end(turn, envelope, most)
    encoded = encode(envelope := fitted(envelope, most))
    if len(encoded) > most:
        return Replayed(id, now_run, "too-large")
    if state in WAITS:
        _replace(turn, seq, waits, encoded)
    elif envelope.lock is not None and holder(turn, envelope.lock) not in (None, id):
        return Replayed(id, now_run, "unique")
    else:
        revive(turn, envelope)
    return Replayed(id, now_run + 1)


_EDITED = "SELECT seq, state, run, canvas, waits, meta, body FROM task WHERE id = ? AND (state <= 2 OR at > ?)"


def _asked(id: str, turn: Transaction) -> tuple[str | None, float]:
    return (id if is_text(id) else None), turn.now


def _refused(state: Any, same_run: bool, canvas: Any, body: Any) -> str | None:
    if state == schema.LEASED:
        return "running"
    if not same_run:
        return "changed"
    if state == schema.SUCCEEDED:
        return "succeeded"
    if canvas is not None:
        return "canvas"
    return "no-envelope" if body is None else None


def _edited(envelope: Envelope, id: str, run: int, args: bytes, ended: float | None) -> Envelope:
    """`ended`: the time, of a task that has ended, which is due now; None of one that waits, which keeps its due time and its expiry."""
    waits = ended is None
    anew = next_run(envelope, id, run, envelope.not_before if waits else ended)
    return msgspec.structs.replace(anew, args=msgspec.Raw(args), expires=envelope.expires if waits else None)


def _replace(turn: Transaction, seq: int, waits: str | None, body: bytes) -> None:
    turn.run(_REPLACE, (body, seq))
    if waits is not None and not is_held(waits):
        turn.run("UPDATE task SET state = 0, at = NULL, waits = NULL, reason = NULL WHERE seq = ?", (seq,))
        pull(turn, [waits])
    turn.topics.add(Topic.WORK)


_REPLACE = """
UPDATE task SET body = ?, run = run + 1, attempt = 0, redeliveries = 0, error = NULL, progress = NULL, started = NULL,
  reason = CASE WHEN waits IS NULL THEN NULL ELSE reason END
WHERE seq = ?"""
