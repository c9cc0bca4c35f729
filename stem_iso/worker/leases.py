"""The leases of this worker, and when each is renewed. Pure: time comes in as `now` (monotonic seconds).

    |--------- visibility ---------|
    leased    1/3 renew   2/3 renew

Rules
 1. A lease is renewed at a third of its visibility, so that two renewals may fail before it runs out.
 2. Leases that are nearly due are renewed together with one that is due: one write renews many.
 3. A lease is renewed while its delivery is in a seat, at hand, or ended and to be stored. Where an error lost the delivery, the lease is
    dropped, and the task comes back when the lease has run out.
 4. `heartbeat()` renews at once; a handler that calls it in a tight loop is renewed every twentieth of its visibility, 0.1 s at most.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Set
from math import inf

import msgspec

from stem_iso.brokers.base import Receipt


class Lease(msgspec.Struct):
    receipt: Receipt
    visibility: float
    renewed_at: float


class Leases:
    """The leases that this worker holds. Owned by the consumer thread."""

    def __init__(self) -> None:
        self._held: dict[Receipt, Lease] = {}
        self._beaten: set[Receipt] = set()
        self._next = inf  # never later than the earliest renewal; may be earlier

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, receipt: Receipt, visibility: float, now: float) -> None:
        lease = Lease(receipt, visibility, now)
        self._held[receipt] = lease
        self._next = min(self._next, self._when(lease))

    def drop(self, receipt: Receipt) -> None:
        self._held.pop(receipt, None)
        self._beaten.discard(receipt)

    def held(self) -> Collection[Receipt]:
        """A live view of the receipts."""
        return self._held.keys()

    def keep(self, accounted: Set[Receipt]) -> list[Receipt]:
        """Drop all others: their leases run out, and the tasks come back. Returns what was dropped."""
        strays = [receipt for receipt in self._held if receipt not in accounted]
        for receipt in strays:
            self.drop(receipt)
        return strays

    def beat(self, receipt: Receipt) -> None:
        """The handler called `heartbeat()`."""
        if (lease := self._held.get(receipt)) is not None:
            self._beaten.add(receipt)
            self._next = min(self._next, self._when(lease))

    def next_due(self) -> float:
        return self._next

    def due(self, now: float) -> list[Receipt]:
        """What to renew now."""
        if now < self._next:
            return []
        found = [lease.receipt for lease in self._held.values() if self._is_due(lease, now)]
        if not found:
            self._next = self._earliest()
        return found

    def _is_due(self, lease: Lease, now: float) -> bool:
        slack = 0.0 if lease.receipt in self._beaten else lease.visibility / 10
        return now >= self._when(lease) - slack

    def renewed(self, receipts: Iterable[Receipt], now: float) -> None:
        for receipt in receipts:
            if (lease := self._held.get(receipt)) is not None:
                lease.renewed_at = now
                self._beaten.discard(receipt)
        self._next = self._earliest()

    def _earliest(self) -> float:
        return min((self._when(lease) for lease in self._held.values()), default=inf)

    def _when(self, lease: Lease) -> float:
        beaten = lease.receipt in self._beaten
        return lease.renewed_at + (min(0.1, lease.visibility / 20) if beaten else lease.visibility / 3)
