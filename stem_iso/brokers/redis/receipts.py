"""Queues of receipts. A receipt does not name its queue: the broker that leased it remembers, others search all queues."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from stem_iso.brokers.base import Receipt
from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall
from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.redis.queues import QueueRegistry


def token(receipt: Receipt) -> str:
    """As it lies in the store."""
    return f"{receipt.boot} {receipt.sequence}"


class ReceiptIndex:
    """One per broker, used by its thread."""

    def __init__(self, client: RedisClient, registry: QueueRegistry, unanswered: Container[Receipt]) -> None:
        """`unanswered`: a settlement of these was sent, and its answer never came. They are held until it has come to another try."""
        self._client, self._registry, self.unanswered = client, registry, unanswered
        self._queues: dict[Receipt, str] = {}

    def leased(self, receipt: Receipt, queue: str) -> None:
        self._queues[receipt] = queue

    def over(self, receipt: Receipt) -> None:
        """It is held here no more, as far as is known."""
        if receipt not in self.unanswered:
            self._queues.pop(receipt, None)

    def of(self, receipts: Iterable[Receipt]) -> dict[str, list[Receipt]]:
        """By queue, in their order. Those that nobody knows are left out: they are lost."""
        found: dict[str, list[Receipt]] = {}
        unknown: list[Receipt] = []
        for receipt in receipts:
            queue = self._queues.get(receipt)
            if queue is None:
                unknown.append(receipt)
            else:
                found.setdefault(queue, []).append(receipt)
        if unknown:
            for receipt, queue in self._search(unknown):
                found.setdefault(queue, []).append(receipt)
        return found

    def _search(self, receipts: Sequence[Receipt]) -> list[tuple[Receipt, str]]:
        queues = self._registry.known(fresh=True)
        ids = tuple(receipt.id for receipt in receipts)
        found: dict[str, str] = {}
        for queue, answer in zip(
            queues, self._client.run([ScriptCall("find_leased", queue_key(queue), ids) for queue in queues]), strict=True
        ):
            found |= {id: queue for id, here in zip(ids, answer, strict=True) if here}
        return [(receipt, found[receipt.id]) for receipt in receipts if receipt.id in found]
