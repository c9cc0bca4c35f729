"""Settlement of an attempt: what a plan means for its row, and whether it may be carried out at all.

    receipt of another lease ─> LOST, nothing changes
    run revoked, plan is anything but a success or a cancel ─> CANCELLED
    else ─> DONE

`decide` is pure; the rows it answers with are written by `endings`, in the same transaction that leases the next deliveries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, assert_never

import msgspec

from stem_iso.brokers.base import Settlement, Verdict
from stem_iso.brokers.sqlite import schema, values
from stem_iso.brokers.sqlite.endings import Again, Replaced, again, end, replace
from stem_iso.brokers.sqlite.rate_limits import pull
from stem_iso.brokers.sqlite.rows import ENDED, RowEnd, pack, pack_progress, seconds
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.outcome import TaskError
from stem_iso.task.envelope import encode
from stem_iso.task.plan import Finish, GiveBack, Retry
from stem_iso.task.policy import RESULT_TTL
from stem_iso.task.status import TaskState


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

Change = RowEnd | Again | Replaced


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


def apply(turn: Transaction, changes: Sequence[Change], *, locked: bool, linked: bool) -> None:
    end(turn, [change for change in changes if isinstance(change, RowEnd)], locked=locked, linked=linked)
    again(turn, [change for change in changes if isinstance(change, Again)])
    replace(turn, [change for change in changes if isinstance(change, Replaced)])


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
