"""Leases of deliveries: renewed, marked, noted; and reclaimed from those who do not renew.

The fence is the token that lies beside the id as its lease. A lease that ran out is still its holder's until somebody reclaims it, so
renewing asks for the token and never for the time. Only the server's clock counts.

A lease that ran out while the server was away is nobody's fault: after a gap in the calls of `reclaim`, holders have 6 s to renew. Not
so where who looks has just come, to a server that was up all the time: then nobody was there to look, and nobody is to be waited for.

    reclaim of an expired lease:  revoked ─> cancelled · marked ─> failed, worker-lost · delivered too often ─> failed, redelivery-limit
                                  else ─> waits again, before all others, its redelivery counted
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from stem_iso.brokers.base import BrokerOptions, Receipt, Reclaimed
from stem_iso.brokers.redis.client.client import Links, ScriptCall
from stem_iso.brokers.redis.corrupt_records import text
from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.redis.receipts import ReceiptIndex, token
from stem_iso.brokers.redis.records import STATES, head_of, pack, pack_meta, pack_progress
from stem_iso.brokers.rules import at_most_once, too_often
from stem_iso.task.status import Progress, TaskState

BATCH = 500  # receipts of one script
FIELDS = 5  # fields of one that was reclaimed


def renew(links: Links, index: ReceiptIndex, receipts: Sequence[Receipt], default: float) -> list[Receipt]:
    """The lost ones, in the order of the question. What was settled, and nobody heard of it, has no lease and is not lost: ask again."""
    asks: list[tuple[str, list[Receipt]]] = []
    for queue, mine in index.of(receipts).items():
        asks += [(queue, mine[start : start + BATCH]) for start in range(0, len(mine), BATCH)]
    calls = [
        ScriptCall("renew", queue_key(queue), (default, *(word for receipt in mine for word in (receipt.id, token(receipt)))))
        for queue, mine in asks
    ]
    kept: set[Receipt] = set()
    for (_, mine), places in zip(asks, links.run(calls), strict=True):
        kept |= set(mine) - {mine[int(place)] for place in places}
    lost = [receipt for receipt in receipts if receipt not in kept and receipt not in index.unanswered]
    for receipt in lost:
        index.over(receipt)
    return lost


def extend(links: Links, index: ReceiptIndex, receipt: Receipt, by: float) -> bool:
    return _held(links, index, "extend", receipt, by)


def mark(links: Links, index: ReceiptIndex, receipt: Receipt) -> bool:
    return _held(links, index, "mark", receipt)


def note(links: Links, index: ReceiptIndex, receipt: Receipt, meta: dict[str, Any] | None, progress: Progress | None) -> None:
    _held(links, index, "note", receipt, pack_meta(meta), pack_progress(progress))


def _held(links: Links, index: ReceiptIndex, script: str, receipt: Receipt, *args: bytes | float) -> bool:
    for queue in index.of([receipt]):
        if links.call(script, queue_key(queue), receipt.id, token(receipt), *args):
            return True
        index.over(receipt)
    return False


class Asker(NamedTuple):
    """Who reclaims. `held`: see `Broker.reclaim`; `fresh`: for the first time."""

    boot: str
    predecessor: str | None
    held: Collection[Receipt] | None
    fresh: bool


def reclaim(
    links: Links, asker: Asker, queues: Sequence[str], options: BrokerOptions
) -> tuple[list[Reclaimed], list[tuple[str, list[Any]]]]:
    """What was found, and what it left in the outbox of each queue."""
    found: list[Reclaimed] = []
    entries: list[tuple[str, list[Any]]] = []
    dropped: dict[str, list[bytes]] = {}  # of the asker's own that ran out: id, token, ... of those that it does not hold
    asked = dict.fromkeys(queues, False)  # queue -> whether about what was dropped there
    while asked:
        calls = [_reclaim_call(links, asker, queue, options, dropped.pop(queue, []) if again else []) for queue, again in asked.items()]
        following: dict[str, bool] = {}
        for queue, (left, reclaimed, own) in zip(asked, links.run(calls), strict=True):
            if left:
                entries.append((queue, left))
            for at in range(len(reclaimed) - FIELDS, -1, -FIELDS):
                found.append(_reclaimed(queue, *reclaimed[at : at + FIELDS]))
            if asker.predecessor is not None and len(reclaimed) >= FIELDS * BATCH:
                following[queue] = False  # a predecessor is asked about once, and its last lease is as lost as its first
            if not asked[queue] and (mine := _dropped(asker, own)):
                dropped[queue], following[queue] = mine, True
        asked = following
    return found, entries


def _reclaim_call(links: Links, asker: Asker, queue: str, options: BrokerOptions, dropped: Sequence[bytes]) -> ScriptCall:
    key = queue_key(queue)
    most = options.max_redeliveries
    uptime = links.uptime(key) if asker.fresh else None
    return ScriptCall(
        "reclaim",
        key,
        (
            *(asker.boot, asker.predecessor or "", most, pack(at_most_once()), pack(too_often(most + 1, most))),
            *(options.claim_interval, "" if asker.held is None else 1, "" if uptime is None else uptime, *dropped),
        ),
    )


def _dropped(asker: Asker, own: Sequence[bytes]) -> list[bytes]:
    """Of id, token, ...: those that the asker does not hold."""
    held = {(receipt.id, token(receipt)) for receipt in asker.held or ()} if own else set()
    pairs = zip(own[::2], own[1::2], strict=True)
    return [word for id, found in pairs if (text(id), text(found)) not in held for word in (id, found)]


def _reclaimed(queue: str, id: bytes, state: int, reason: bytes, record: bytes, boot: bytes) -> Reclaimed:
    head = head_of(text(id), queue, record)
    how = STATES.get(state, TaskState.QUEUED), reason.decode() or None, text(boot)
    return Reclaimed(head.id, head.name, queue, head.run, head.attempt, *how)
