"""Queues of receipts. Receipts do not say them; the broker that leased them remembers, and asks all queues about those of another."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from stem_iso.brokers.base import Receipt
from stem_iso.brokers.redis.client.client import Links, ScriptCall
from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.redis.queues import Registry


def token(receipt: Receipt) -> str:
    """As it lies in the store."""
    return f"{receipt.boot} {receipt.sequence}"


class ReceiptIndex:
    """One per broker, used by its thread."""

    def __init__(self, links: Links, registry: Registry, unanswered: Container[Receipt]) -> None:
        """`unanswered`: a settlement of these was sent, and its answer never came. They are held until it has come to another try."""
        self._links, self._registry, self.unanswered = links, registry, unanswered
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
        strange: list[Receipt] = []
        for receipt in receipts:
            queue = self._queues.get(receipt)
            if queue is None:
                strange.append(receipt)
            else:
                found.setdefault(queue, []).append(receipt)
        if strange:
            for receipt, queue in self._sought(strange):
                found.setdefault(queue, []).append(receipt)
        return found

    def _sought(self, receipts: Sequence[Receipt]) -> list[tuple[Receipt, str]]:
        queues = self._registry.known(fresh=True)
        ids = tuple(receipt.id for receipt in receipts)
        found: dict[str, str] = {}
        for queue, answer in zip(queues, self._links.run([ScriptCall("where", queue_key(queue), ids) for queue in queues]), strict=True):
            found |= {id: queue for id, here in zip(ids, answer, strict=True) if here}
        return [(receipt, found[receipt.id]) for receipt in receipts if receipt.id in found]
