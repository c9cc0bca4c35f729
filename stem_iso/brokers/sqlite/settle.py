"""Settlement of attempts: what a plan means for its row, whether it may be carried out at all, and how the change is written.

    Settlement ── decide ──> receipt of another lease                                           ─> LOST, nothing changes
                             run revoked, plan is anything but a success or a cancel            ─> CANCELLED, a change
                             else                                                               ─> DONE, a change

    change   RowEnd     terminal: dead letter if it failed, lock released, body dropped: the row is now the status. Where that
                        is wanted no longer (ttl 0, forgotten) the row goes as well
             Again      waits once more under the same envelope: given back, redelivered
             Replaced   waits once more under a new envelope: the next attempt

`decide` is pure; the changes are written for many rows at once, in the same transaction that leases the next deliveries. All ways to end go
through `end`, whoever decided them, so a lock, a dead letter or a canvas cannot be missed by one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, assert_never

import msgspec

from stem_iso.brokers.base import Settlement, Verdict
from stem_iso.brokers.sqlite import canvas, schema, values
from stem_iso.brokers.sqlite.counts import drop
from stem_iso.brokers.sqlite.notifications import Topic
from stem_iso.brokers.sqlite.rate_limits import pull
from stem_iso.brokers.sqlite.rows import ENDED, RowEnd, add_dead_letters, close, pack, pack_progress, seconds, with_meta
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.outcome import TaskError, TaskState
from stem_iso.task.envelope import encode
from stem_iso.task.policy import RESULT_TTL
from stem_iso.task.settlement import Finish, GiveBack, Retry


class Held(NamedTuple):
    """A leased row, as far as its end depends on it."""

    id: str
    seq: int
    boot: str
    sequence: int
    revoked: int
    forgotten: int
    redeliveries: int
    ttl: float | None
    lock: str | None
    linked: int
    bucket: str | None  # that it holds, or that it was let through to ask for

    def until(self, now: float, ttl: float | None = None) -> float:
        """When the status expires: at once where nobody wants it any more."""
        if self.forgotten:
            return now
        kept = ttl if ttl is not None else values.seconds(self.ttl)
        return now + (RESULT_TTL if kept is None else kept)


HELD = """
SELECT id, seq, boot, sequence, revoked, forgotten, redeliveries, ttl, lock, canvas IS NOT NULL, coalesce(slot, waits)
FROM task WHERE state = 2 AND id IN ({keys})"""


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


Change = RowEnd | Again | Replaced


# -- what a plan means -----------------------------------------------------------------------------------------------------------------


def settle(turn: Transaction, settlements: Sequence[Settlement]) -> list[Verdict]:
    rows = turn.of_keys(HELD, [settlement.receipt.id for settlement in settlements])
    held = {row[0]: Held._make(row) for row in rows}
    verdicts, changes, locked, linked, held_buckets = [], [], False, False, set()
    for settlement in settlements:
        receipt = settlement.receipt
        row = held.get(receipt.id)
        if row is None or (row.boot, row.sequence) != (receipt.boot, receipt.sequence):
            verdicts.append(Verdict.LOST)
            continue
        del held[receipt.id]  # the same receipt a second time in this batch is lost
        verdict, change = decide(row, settlement, turn.now)
        verdicts.append(verdict)
        changes.append(change)
        locked = locked or row.lock is not None
        linked = linked or bool(row.linked)
        if row.bucket is not None:
            held_buckets.add(row.bucket)
    apply(turn, changes, locked=locked, linked=linked)
    if held_buckets:
        pull(turn, held_buckets)
    return verdicts


def decide(row: Held, settlement: Settlement, now: float) -> tuple[Verdict, Change]:
    plan = settlement.plan
    if row.revoked and not (isinstance(plan, Finish) and plan.state is not TaskState.FAILED):
        return Verdict.CANCELLED, _cancelled(row, settlement, now)
    match plan:
        case Finish():
            return Verdict.DONE, _finished(row, settlement, plan, now)
        case Retry():
            return Verdict.DONE, _retried(row, settlement, plan, now)
        case GiveBack(successor=None):
            due = now + plan.delay if plan.delay > 0 else None
            state = schema.READY if due is None else schema.DELAYED
            return Verdict.DONE, Again(row.seq, state, due, values.count(row.redeliveries), _meta(settlement))
        case GiveBack():
            return Verdict.DONE, _given_back(row, settlement, plan, now)
        case _:
            assert_never(plan)


def _meta(settlement: Settlement) -> bytes | None:
    """What the handler wrote; an emptied map too must replace the old one, hence no `pack` here."""
    return None if settlement.meta is None else msgspec.msgpack.encode(settlement.meta)


def _cancelled(row: Held, settlement: Settlement, now: float) -> RowEnd:
    error: TaskError | None = getattr(settlement.plan, "error", None)
    progress = pack_progress(settlement.progress)
    return RowEnd(row.seq, schema.CANCELLED, row.until(now), "revoked", pack(error), None, _meta(settlement), progress)


def _finished(row: Held, settlement: Settlement, plan: Finish, now: float) -> RowEnd:
    return RowEnd(
        row.seq,
        ENDED[plan.state],
        row.until(now, plan.ttl),
        plan.reason,
        pack(plan.error),
        plan.result,
        _meta(settlement),
        pack_progress(settlement.progress),
    )


def _retried(row: Held, settlement: Settlement, plan: Retry, now: float) -> Replaced:
    return _replaced(row, settlement, plan, plan.successor.not_before, now)


def _given_back(row: Held, settlement: Settlement, plan: GiveBack, now: float) -> Replaced:
    return _replaced(row, settlement, plan, now + plan.delay if plan.delay > 0 else None, now)


def _replaced(row: Held, settlement: Settlement, plan: Retry | GiveBack, due: float | None, now: float) -> Replaced:
    successor = plan.successor
    assert successor is not None
    if settlement.meta is not None and settlement.meta != successor.meta:
        successor = msgspec.structs.replace(successor, meta=settlement.meta)
    return Replaced(
        row.seq,
        schema.DELAYED if due is not None and due > now else schema.READY,
        due,
        successor.queue,
        9 - successor.priority,
        successor.run,
        successor.attempt,
        plan.reason if isinstance(plan, Retry) else None,
        pack(plan.error) if isinstance(plan, Retry) else None,
        seconds(successor.visibility_timeout),
        seconds(successor.result_ttl),
        msgspec.msgpack.encode(successor.meta) if successor.meta or settlement.meta is not None else None,
        pack_progress(settlement.progress),
        encode(successor),
    )


# -- how a change is written -----------------------------------------------------------------------------------------------------------


def apply(turn: Transaction, changes: Sequence[Change], *, locked: bool, linked: bool) -> None:
    end(turn, [change for change in changes if isinstance(change, RowEnd)], locked=locked, linked=linked)
    again(turn, [change for change in changes if isinstance(change, Again)])
    replace(turn, [change for change in changes if isinstance(change, Replaced)])


def end(turn: Transaction, endings: Sequence[RowEnd], *, locked: bool, linked: bool) -> None:
    """`locked`: whether one of the rows may hold a unique lock; `linked`: be a part of a canvas."""
    if not endings:
        return
    failed = [(ending.seq, ending.reason or "failed", ending.error) for ending in endings if ending.state == schema.FAILED]
    if failed:
        _carry_meta(turn, [(ending.seq, ending.meta) for ending in endings if ending.state == schema.FAILED])
        add_dead_letters(turn, failed)
    if locked:
        turn.of_keys(_UNLOCK, [ending.seq for ending in endings])
    if linked:
        endings = canvas.end(turn, endings)
    close(turn, [ending for ending in endings if ending.until > turn.now])
    gone = [ending.seq for ending in endings if ending.until <= turn.now]
    drop(turn, gone)
    turn.topics.add(Topic.DONE)


def again(turn: Transaction, rows: Sequence[Again]) -> None:
    if not rows:
        return
    _carry_meta(turn, [(row.seq, row.meta) for row in rows])
    turn.of_rows(_AGAIN, [row[:4] for row in rows])
    turn.topics.add(Topic.WORK)


def replace(turn: Transaction, rows: Sequence[Replaced]) -> None:
    if rows:
        turn.of_rows(_REPLACE, rows)
        turn.topics.add(Topic.WORK)


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
