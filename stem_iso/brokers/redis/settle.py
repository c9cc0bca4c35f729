"""Settlements as arguments of the exchange script, and the nonces of those whose answer never came.

    Settlement ── args ──> kind, id, token, nonce, a, b, tail ──> `exchange.lua`: fence, revoked?, carry out ──> digit ──> Verdict

A settlement is sent with a nonce, eight random bytes. Where its answer is lost, the next one for the same receipt bears the same nonce, and
a store that has carried out the first answers the second with what it did then. Another nonce for a receipt that is used up is LOST.
Until then its receipt counts as held: renewing it, which comes first after an outage, finds no lease, and that says nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import assert_never

import msgspec

from stem_iso.brokers.base import Receipt, Settlement, Verdict
from stem_iso.brokers.redis.receipts import token
from stem_iso.brokers.redis.records import ENDED, framed, pack, pack_meta, pack_progress, record
from stem_iso.task.envelope import Envelope
from stem_iso.task.plan import Finish, GiveBack, Retry

WIDTH = 7
VERDICTS = {ord("0"): Verdict.LOST, ord("1"): Verdict.DONE, ord("2"): Verdict.CANCELLED}
VOID = "-"  # what was noted is in the successor already
EMPTY = framed(None, None, None, None, None)

PlanArgs = tuple[str, str, str, bytes, bytes | str | int, float | str, bytes]


class Nonces:
    """Those of settlements whose answer never came."""

    def __init__(self) -> None:
        self._open: dict[Receipt, bytes] = {}

    def __contains__(self, receipt: object) -> bool:
        return receipt in self._open

    def of(self, receipt: Receipt) -> bytes:
        return (self._open.get(receipt) if self._open else None) or os.urandom(8)

    def sent(self, nonces: Sequence[tuple[Receipt, bytes]]) -> None:
        """No answer came to these."""
        self._open.update(nonces)

    def answered(self, receipts: Sequence[Receipt]) -> None:
        if self._open:
            for receipt in receipts:
                self._open.pop(receipt, None)


def plan_args(settlement: Settlement, nonce: bytes) -> PlanArgs:
    receipt, plan = settlement.receipt, settlement.plan
    head = (receipt.id, token(receipt), nonce)
    match plan:
        case Finish():
            return "F", *head, ENDED[plan.state], plan.ttl, _tail(plan, settlement)
        case Retry():
            successor, void = _successor(settlement, plan)
            due = "" if successor.not_before is None else successor.not_before
            tail = framed(plan.reason, pack(plan.error), None, void, pack_progress(settlement.progress))
            return "R", *head, record(successor), due, tail
        case GiveBack(successor=None):
            written = settlement.meta is not None or settlement.progress is not None
            tail = framed(None, None, None, pack_meta(settlement.meta), pack_progress(settlement.progress)) if written else EMPTY
            return "G", *head, "", max(0.0, plan.delay), tail
        case GiveBack():
            successor, void = _successor(settlement, plan)
            return "G", *head, record(successor), max(0.0, plan.delay), framed(None, None, None, void, pack_progress(settlement.progress))
        case _:
            assert_never(plan)


def _tail(plan: Finish, settlement: Settlement) -> bytes:
    return framed(plan.reason, pack(plan.error), plan.result, pack_meta(settlement.meta), pack_progress(settlement.progress))


def _successor(settlement: Settlement, plan: Retry | GiveBack) -> tuple[Envelope, str | None]:
    successor = plan.successor
    assert successor is not None
    if settlement.meta is not None and settlement.meta != successor.meta:
        successor = msgspec.structs.replace(successor, meta=settlement.meta)
    return successor, VOID if successor.meta or settlement.meta is not None else None
