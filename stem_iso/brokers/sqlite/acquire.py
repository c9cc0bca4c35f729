"""Admission of an attempt: the limits of its task, checked and taken in one transaction.

    the lease is lost ─> LOST · it holds the bucket already ─> taken · revoked meanwhile ─> CANCELLED · room ─> taken · none ─> in line

What must wait leaves the worker's hands here and now, so that no room can open between the refusal and its place in the line.
"""

from __future__ import annotations

from math import inf

from stem_iso.brokers.base import Permit, Receipt, Verdict
from stem_iso.brokers.sqlite import rate_limits
from stem_iso.brokers.sqlite.lease import FENCE
from stem_iso.brokers.sqlite.revoke import cancel
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.outcome import CONCURRENCY_LIMIT, RATE_LIMIT
from stem_iso.task.rate_limit import TaskLimits

TAKEN = Permit(Verdict.DONE)


def acquire(turn: Transaction, receipt: Receipt, limits: TaskLimits, latest: float | None) -> Permit:
    token = (receipt.id, receipt.boot, receipt.sequence)
    rows = turn.all(f"SELECT seq, slot, revoked, forgotten, ttl, waits FROM task WHERE {FENCE}", token)
    if not rows:
        return Permit(Verdict.LOST)
    seq, slot, revoked, forgotten, ttl, waits = rows[0]
    if slot is not None:
        return TAKEN
    if revoked:
        cancel(turn, [(seq, forgotten, ttl, waits)], "revoked")
        return Permit(Verdict.CANCELLED)
    bucket = rate_limits.opened(turn, limits)
    left = bucket.wait(turn)
    if left == 0:
        _take(turn, bucket, seq)
        return TAKEN
    reason = CONCURRENCY_LIMIT if left == inf else RATE_LIMIT
    rate_limits.line_up(turn, bucket, seq, reason, latest)
    rate_limits.pull(turn, [limits.bucket])
    return Permit(Verdict.DONE, max(rate_limits.GRAIN, turn.one("SELECT at FROM task WHERE seq = ?", (seq,)) - turn.now))


def _take(turn: Transaction, bucket: rate_limits.Bucket, seq: int) -> None:
    # It begins here, and not when it was leased: the account of starts and what the status shows are one.
    turn.run("UPDATE task SET slot = ?, waits = NULL, reason = NULL, started = ? WHERE seq = ?", (bucket.limits.bucket, turn.now, seq))
    if bucket.limits.rate is not None:
        rate_limits.write_start(turn, bucket, bucket.limits.rate)
    rate_limits.pull(turn, [bucket.limits.bucket])
