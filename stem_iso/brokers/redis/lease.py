"""Leases of deliveries: renewed, marked, noted; and reclaimed from those who do not renew.

The fence is the token that lies beside the id as its lease. A lease that ran out is still its holder's until somebody reclaims it, so
renewing batches for the token and never for the time. Only the server's clock counts.

A lease that ran out while the server was away is nobody's fault: after a gap in the calls of `reclaim`, holders have 6 s to renew. Not
so where who looks has just come, to a server that was up all the time: then nobody was there to look, and nobody is to be waited for.

    reclaim of an expired lease:  revoked ─> cancelled · marked ─> failed, worker-lost · delivered too often ─> failed, redelivery-limit
                                  else ─> waits again, before all others, its redelivery counted
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from stem_iso.brokers.base import BrokerOptions, Receipt, Reclaimed
from stem_iso.brokers.redis.corrupt_records import text
from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall
from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.redis.receipts import ReceiptIndex, token
from stem_iso.brokers.redis.records import STATES, head_of, pack, pack_meta, pack_progress
from stem_iso.brokers.rules import at_most_once, too_often
from stem_iso.outcome import Progress, TaskState

BATCH = 500  # receipts of one script
FIELDS = 5  # fields of one that was reclaimed


def renew(client: RedisClient, index: ReceiptIndex, receipts: Sequence[Receipt], default: float) -> list[Receipt]:
    """The lost ones, in the order of the question. What was settled, and nobody heard of it, has no lease and is not lost: ask again."""
    batches: list[tuple[str, list[Receipt]]] = []
    for queue, mine in index.of(receipts).items():
        batches += [(queue, mine[start : start + BATCH]) for start in range(0, len(mine), BATCH)]
    calls = [
        ScriptCall("renew", queue_key(queue), (default, *(word for receipt in mine for word in (receipt.id, token(receipt)))))
        for queue, mine in batches
    ]
    kept: set[Receipt] = set()
    for (_, mine), places in zip(batches, client.run(calls), strict=True):
        kept |= set(mine) - {mine[int(place)] for place in places}
    lost = [receipt for receipt in receipts if receipt not in kept and receipt not in index.unanswered]
    for receipt in lost:
        index.over(receipt)
    return lost


def extend(client: RedisClient, index: ReceiptIndex, receipt: Receipt, by: float) -> bool:
    return _held(client, index, "extend", receipt, by)


def mark(client: RedisClient, index: ReceiptIndex, receipt: Receipt) -> bool:
    return _held(client, index, "mark", receipt)


def note(client: RedisClient, index: ReceiptIndex, receipt: Receipt, meta: dict[str, Any] | None, progress: Progress | None) -> None:
    _held(client, index, "note", receipt, pack_meta(meta), pack_progress(progress))


def _held(client: RedisClient, index: ReceiptIndex, script: str, receipt: Receipt, *args: bytes | float) -> bool:
    for queue in index.of([receipt]):
        if client.call(script, queue_key(queue), receipt.id, token(receipt), *args):
            return True
        index.over(receipt)
    return False


class Claimant(NamedTuple):
    """The worker that reclaims. `held`: see `Broker.reclaim`; `fresh`: for the first time."""

    boot: str
    predecessor: str | None
    held: Collection[Receipt] | None
    fresh: bool


def reclaim(
    client: RedisClient, claimant: Claimant, queues: Sequence[str], options: BrokerOptions
) -> tuple[list[Reclaimed], list[tuple[str, list[Any]]]]:
    """What was found, and what it left in the outbox of each queue."""
    found: list[Reclaimed] = []
    entries: list[tuple[str, list[Any]]] = []
    dropped: dict[str, list[bytes]] = {}  # of the claimant's own that ran out: id, token, ... of those that it does not hold
    again = dict.fromkeys(queues, False)  # queue -> whether for what the claimant dropped there
    while again:
        calls = [_reclaim_call(client, claimant, queue, options, dropped.pop(queue, []) if own else []) for queue, own in again.items()]
        following: dict[str, bool] = {}
        for queue, (left, reclaimed, ran_out) in zip(again, client.run(calls), strict=True):
            if left:
                entries.append((queue, left))
            for at in range(len(reclaimed) - FIELDS, -1, -FIELDS):
                found.append(_reclaimed(queue, *reclaimed[at : at + FIELDS]))
            if claimant.predecessor is not None and len(reclaimed) >= FIELDS * BATCH:
                following[queue] = False  # a predecessor is asked about once, and its last lease is as lost as its first
            if not again[queue] and (mine := _dropped(claimant, ran_out)):
                dropped[queue], following[queue] = mine, True
        again = following
    return found, entries


def _reclaim_call(client: RedisClient, claimant: Claimant, queue: str, options: BrokerOptions, dropped: Sequence[bytes]) -> ScriptCall:
    key = queue_key(queue)
    most = options.max_redeliveries
    uptime = client.uptime(key) if claimant.fresh else None
    return ScriptCall(
        "reclaim",
        key,
        (
            *(claimant.boot, claimant.predecessor or "", most, pack(at_most_once()), pack(too_often(most + 1, most))),
            *(options.claim_interval, "" if claimant.held is None else 1, "" if uptime is None else uptime, *dropped),
        ),
    )


def _dropped(claimant: Claimant, own: Sequence[bytes]) -> list[bytes]:
    """Of id, token, ...: those that the claimant does not hold."""
    held = {(receipt.id, token(receipt)) for receipt in claimant.held or ()} if own else set()
    pairs = zip(own[::2], own[1::2], strict=True)
    return [word for id, found in pairs if (text(id), text(found)) not in held for word in (id, found)]


def _reclaimed(queue: str, id: bytes, state: int, reason: bytes, record: bytes, boot: bytes) -> Reclaimed:
    head = head_of(text(id), queue, record)
    how = STATES.get(state, TaskState.QUEUED), reason.decode() or None, text(boot)
    return Reclaimed(head.id, head.name, queue, head.run, head.attempt, *how)
