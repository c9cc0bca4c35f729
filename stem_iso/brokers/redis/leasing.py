"""Deliveries: kept, marked, noted; and taken from those who do not renew.

The fence is the token that lies beside the id as its lease. A lease that ran out is still its holder's until somebody reclaims it, so
renewing asks for the token and never for the time. Only the server's clock counts.

A lease that ran out while the server was away is nobody's fault: after a gap in the rounds of `reclaim`, holders have 6 s to renew.

    reclaim of an expired lease:  revoked ─> cancelled · marked ─> failed, worker-lost · delivered too often ─> failed, redelivery-limit
                                  else ─> waits again, before all others, its redelivery counted
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stem_iso.brokers.base import BrokerOptions, Receipt, Reclaimed
from stem_iso.brokers.losses import at_most_once, too_often
from stem_iso.brokers.redis.damage import text
from stem_iso.brokers.redis.homes import Homes, token
from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.redis.links import Call, Links
from stem_iso.brokers.redis.records import STATES, head_of, pack, pack_meta, pack_progress
from stem_iso.task.status import Progress, TaskState

BITE = 500  # receipts of one script


def renew(links: Links, homes: Homes, receipts: Sequence[Receipt], default: float) -> list[Receipt]:
    """The lost ones, in the order of the question. What was settled, and nobody heard of it, has no lease and is not lost: ask again."""
    asks: list[tuple[str, list[Receipt]]] = []
    for queue, mine in homes.of(receipts).items():
        asks += [(queue, mine[start : start + BITE]) for start in range(0, len(mine), BITE)]
    calls = [
        Call("renew", queue_key(queue), (default, *(word for receipt in mine for word in (receipt.id, token(receipt)))))
        for queue, mine in asks
    ]
    kept: set[Receipt] = set()
    for (_, mine), places in zip(asks, links.run(calls), strict=True):
        kept |= set(mine) - {mine[int(place)] for place in places}
    lost = [receipt for receipt in receipts if receipt not in kept and receipt not in homes.unanswered]
    for receipt in lost:
        homes.over(receipt)
    return lost


def extend(links: Links, homes: Homes, receipt: Receipt, by: float) -> bool:
    return _held(links, homes, "extend", receipt, by)


def mark(links: Links, homes: Homes, receipt: Receipt) -> bool:
    return _held(links, homes, "mark", receipt)


def note(links: Links, homes: Homes, receipt: Receipt, meta: dict[str, Any] | None, progress: Progress | None) -> None:
    _held(links, homes, "note", receipt, pack_meta(meta), pack_progress(progress))


def _held(links: Links, homes: Homes, script: str, receipt: Receipt, *args: bytes | float) -> bool:
    for queue in homes.of([receipt]):
        if links.call(script, queue_key(queue), receipt.id, token(receipt), *args):
            return True
        homes.over(receipt)
    return False


def reclaim(
    links: Links, boot: str, predecessor: str | None, queues: Sequence[str], options: BrokerOptions
) -> tuple[list[Reclaimed], list[tuple[str, list[Any]]]]:
    """What was found, and what it left in the outbox of each queue."""
    most = options.max_redeliveries
    lost, often = pack(at_most_once()), pack(too_often(most + 1, most))
    found: list[Reclaimed] = []
    entries: list[tuple[str, list[Any]]] = []
    while queues:
        calls = [
            Call("reclaim", queue_key(queue), (boot, predecessor or "", most, lost, often, options.claim_interval)) for queue in queues
        ]
        full: list[str] = []
        for queue, (left, told) in zip(queues, links.run(calls), strict=True):
            if left:
                entries.append((queue, left))
            for at in range(len(told) - 4, -1, -4):
                found.append(_reclaimed(queue, *told[at : at + 4]))
            if predecessor is not None and len(told) >= 4 * BITE:
                full.append(queue)  # a predecessor is asked about once, and its last lease is as lost as its first
        queues = full
    return found, entries


def _reclaimed(queue: str, id: bytes, state: int, reason: bytes, record: bytes) -> Reclaimed:
    head = head_of(text(id), queue, record)
    return Reclaimed(head.id, head.name, queue, head.run, head.attempt, STATES.get(state, TaskState.QUEUED), reason.decode() or None)
