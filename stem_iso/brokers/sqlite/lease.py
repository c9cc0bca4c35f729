"""Leases of deliveries: taken, renewed, marked, noted; and reclaimed from those who do not renew.

The fence is (id, boot, sequence) of a row in state LEASED. A lease that ran out is still its holder's until somebody reclaims it, so
renewing asks for the token and never for the time.

    reclaim of an expired lease:  revoked ─> cancelled · marked ─> failed, worker-lost · delivered too often ─> failed, redelivery-limit
                                  else ─> waits again, its redelivery counted

A row with a column that cannot be read is no reason to stop: it ends by itself (`corrupt_rows`), and its neighbours are delivered.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from stem_iso.brokers.base import BrokerOptions, Delivery, Receipt, Reclaimed, Revocation
from stem_iso.brokers.rules import at_most_once, too_often
from stem_iso.brokers.sqlite import corrupt_rows, schema, values
from stem_iso.brokers.sqlite.connection import Row
from stem_iso.brokers.sqlite.rate_limits import pull
from stem_iso.brokers.sqlite.rows import RowEnd, pack, pack_progress
from stem_iso.brokers.sqlite.settle import Again, Change, apply
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.outcome import Progress, TaskState
from stem_iso.task.policy import RESULT_TTL

PROMOTE = 200  # per queue and turn: what comes due in one instant must not hold the lock for long
RECLAIM = 500  # per turn; the next turn finds the others
LAST = 1 << 62  # the place of a row that has none
FENCE = "state = 2 AND id = ? AND boot = ? AND sequence = ?"


# -- new deliveries -----------------------------------------------------------------------------------------------------------------


def ready(turn: Transaction, queues: Sequence[str]) -> bool:
    """Whether something can be leased now. For a look without the lock."""
    return any(turn.one("SELECT 1 FROM task WHERE state = 0 AND queue = ? LIMIT 1", (queue,)) for queue in queues)


def quiet(turn: Transaction, queues: Sequence[str]) -> float | None:
    """Seconds until there may be something to lease, where nothing is `ready`: 0 now, None nothing in sight. As `ready`."""
    nearest: float | None = None
    for queue in queues:
        if corrupt_rows.never_due(turn, queue):
            return 0.0
        due = _earliest(turn, queue)
        if due is not None:
            nearest = due if nearest is None else min(nearest, due)
    return None if nearest is None else max(0.0, nearest - turn.now)


def _earliest(turn: Transaction, queue: str) -> float | None:
    due = turn.one("SELECT min(at) FROM task WHERE state = 1 AND queue = ?", (queue,))
    return due if isinstance(due, int | float) else None


def promote(turn: Transaction, queues: Sequence[str]) -> float | None:
    """What has come due is ready from now on; seconds until the next does."""
    nearest: float | None = None
    for queue in queues:
        due = _earliest(turn, queue)
        if due is not None and due <= turn.now:
            turn.run(_PROMOTE, (queue, turn.now, PROMOTE))
            due = _earliest(turn, queue)
        if due is not None:
            nearest = due if nearest is None else min(nearest, due)
    return None if nearest is None else max(0.0, nearest - turn.now)


_PROMOTE = """
UPDATE task SET state = 0 WHERE seq IN (SELECT seq FROM task WHERE state = 1 AND queue = ? AND at <= ? ORDER BY at LIMIT ?)"""


def lease(turn: Transaction, boot: str, sequence: int, queues: Sequence[str], want: int, default: float) -> tuple[list[Delivery], bool]:
    """Up to `want` deliveries, by priority, then arrival; and whether more wait."""
    token = turn.lease_now, default, boot, sequence, turn.now
    if len(queues) == 1 and want:
        rows = turn.all(_LEASE_NEXT, (*token, queues[0], want))
        more = len(rows) == want and ready(turn, queues)
    else:
        chosen, more = _next(turn, queues, want)
        rows = turn.of_keys(_LEASE, chosen, *token) if chosen else []
    rows.sort(key=_place)
    deliveries, faults = [], []
    for rank, seq, id, body, queue, redeliveries, visibility, name, run, attempt, lock in rows:
        if not corrupt_rows.is_common(id, name, (rank, run, attempt, redeliveries), (visibility, lock)):
            columns = {"rank": rank, "id": id, "redeliveries": redeliveries, "visibility": visibility}
            what = corrupt_rows.fault(columns | {"name": name, "run": run, "attempt": attempt, "lock": lock})
            if what is not None:
                faults.append((seq, what))
                continue
        lasts = default if visibility is None else visibility
        deliveries.append(Delivery(Receipt(id, boot, sequence), values.data(body), queue, redeliveries, lasts))
    corrupt_rows.add_dead_letters(turn, faults)
    return deliveries, more


def _next(turn: Transaction, queues: Sequence[str], want: int) -> tuple[list[int], bool]:
    """The places of what comes first in all of these queues; and whether there is more."""
    found: list[Row] = []
    for queue in queues:  # one query each: `queue IN` would sort all that waits
        found += turn.all("SELECT rank, seq FROM task WHERE state = 0 AND queue = ? ORDER BY rank, seq LIMIT ?", (queue, want + 1))
    found.sort(key=_place)
    return [row[1] for row in found[:want]], len(found) > want


def _place(row: Row) -> tuple[float, int]:
    """Of (rank, seq, …)."""
    return (row[0] if isinstance(row[0], int | float) else LAST), row[1]


_LEASE = """
UPDATE task SET state = 2, at = ? + coalesce(visibility, ?), boot = ?, sequence = ?, started = ?
WHERE seq IN ({keys}) RETURNING rank, seq, id, body, queue, redeliveries, visibility, name, run, attempt, lock"""
# Of one queue, which is what most workers serve: found and leased by one statement.
_LEASE_NEXT = _LEASE.format(keys="SELECT seq FROM task WHERE state = 0 AND queue = ? ORDER BY rank, seq LIMIT ?")


def next_sequence(last: int) -> int:
    """Grows within a boot, whichever of its broker objects asks: nanoseconds since some start, each given out once."""
    return max(last + 1, time.monotonic_ns())


# -- what a holder does -------------------------------------------------------------------------------------------------------------


def renew(turn: Transaction, receipts: Sequence[Receipt], default: float) -> list[Receipt]:
    """The lost ones."""
    rows = [(receipt.id, receipt.boot, receipt.sequence, turn.lease_now, default) for receipt in receipts]
    kept = {row[0] for row in turn.of_rows(_RENEW, rows)}
    return [receipt for receipt in receipts if receipt.id not in kept]


# An end that is no time, or one that cannot have been meant, is replaced.
_RENEW = """
UPDATE task SET at = CASE WHEN at < v.column4 + 4e9 THEN max(at, v.column4 + coalesce(visibility, v.column5))
  ELSE v.column4 + coalesce(visibility, v.column5) END FROM (VALUES {rows}) AS v
WHERE task.state = 2 AND task.id = v.column1 AND task.boot = v.column2 AND task.sequence = v.column3 RETURNING id"""


def extend(turn: Transaction, receipt: Receipt, by: float) -> bool:
    return bool(turn.run(f"UPDATE task SET at = max(at, ?) WHERE {FENCE}", (turn.lease_now + by, *_token(receipt))).rowcount)


def mark(turn: Transaction, receipt: Receipt) -> bool:
    return bool(turn.run(f"UPDATE task SET marked = 1 WHERE {FENCE}", _token(receipt)).rowcount)


def note(turn: Transaction, receipt: Receipt, meta: dict[str, Any] | None, progress: Progress | None) -> None:
    turn.run(
        f"UPDATE task SET meta = coalesce(?, meta), progress = coalesce(?, progress) WHERE {FENCE}",
        (None if meta is None else msgspec.msgpack.encode(meta), pack_progress(progress), *_token(receipt)),
    )


def _token(receipt: Receipt) -> tuple[str, str, int]:
    return receipt.id, receipt.boot, receipt.sequence


def revocations(turn: Transaction, boot: str) -> list[Revocation]:
    rows = turn.all("SELECT id, sequence, revoked FROM task WHERE revoked > 0 AND state = 2 AND boot = ?", (boot,))
    return [Revocation(Receipt(id, boot, sequence), terminate=revoked > 1) for id, sequence, revoked in rows]


# -- lost workers -------------------------------------------------------------------------------------------------------------------


def expired(turn: Transaction, boot: str, predecessor: str | None, held: Collection[Receipt] | None = None) -> list[Row]:
    """Leases that ran out, and those of a worker known to be gone. Cheap enough to look without the lock."""
    own = held is not None
    found = turn.all(_EXPIRED, (turn.lease_now, boot, own, RECLAIM)) + turn.all(_TIMELESS, (boot, own, RECLAIM))
    if held:
        found = [row for row in found if row[0] != boot or Receipt(row[3], boot, row[1]) not in held]
    return found + (turn.all(_PREDECESSOR, (predecessor, turn.lease_now, RECLAIM)) if predecessor not in (None, boot) else [])


_LOST = """
SELECT boot, sequence, seq, id, name, queue, run, attempt, redeliveries, marked, revoked, forgotten, ttl, lock, canvas,
  coalesce(slot, waits)
FROM task """
_EXPIRED = _LOST + "WHERE state = 2 AND at <= ? AND (boot IS NOT ? OR ?) LIMIT ?"
# Its end is no time: nobody would see it come.
_TIMELESS = _LOST + "WHERE state = 2 AND (at IS NULL OR at >= '') AND (boot IS NOT ? OR ?) LIMIT ?"
_PREDECESSOR = _LOST + "WHERE state = 2 AND boot = ? AND at > ? LIMIT ?"


def reclaim(
    turn: Transaction, boot: str, predecessor: str | None, options: BrokerOptions, held: Collection[Receipt] | None = None
) -> list[Reclaimed]:
    rows, faults = [], []
    for row in expired(turn, boot, predecessor, held):
        what = corrupt_rows.fault({"redeliveries": row[8]})
        rows.append(row) if what is None else faults.append((row[2], what))
    corrupt_rows.add_dead_letters(turn, faults)  # reported as what it is, not as a lost worker
    decided = [_reclaimed(row, turn.now, options.max_redeliveries) for row in rows]
    locked, linked = (any(row[column] is not None for row in rows) for column in (-3, -2))
    apply(turn, [change for change, _ in decided], locked=locked, linked=linked)
    pull(turn, [row[-1] for row in rows if row[-1] is not None])
    return [reclaimed for _, reclaimed in decided]


def _reclaimed(row: Row, now: float, max_redeliveries: int) -> tuple[Change, Reclaimed]:
    boot, _, seq, id, name, queue, run, attempt, redeliveries, marked, revoked, forgotten, ttl, *_ = row
    until = now if forgotten else now + (RESULT_TTL if (kept := values.seconds(ttl)) is None else kept)

    def reclaimed(state: TaskState, reason: str | None = None) -> Reclaimed:
        shown = values.text(id), values.text(name), values.text(queue)
        return Reclaimed(*shown, values.count(run), values.count(attempt), state, reason, values.text(boot))

    if revoked:
        return RowEnd(seq, schema.CANCELLED, until, "revoked"), reclaimed(TaskState.CANCELLED, "revoked")
    if marked:
        return RowEnd(seq, schema.FAILED, until, "worker-lost", pack(at_most_once())), reclaimed(TaskState.FAILED, "worker-lost")
    if redeliveries >= max_redeliveries:
        often = pack(too_often(redeliveries + 1, max_redeliveries))
        return RowEnd(seq, schema.FAILED, until, "redelivery-limit", often), reclaimed(TaskState.FAILED, "redelivery-limit")
    return Again(seq, schema.READY, None, redeliveries + 1), reclaimed(TaskState.QUEUED)
