"""The attempts that sit in seats, with their leases, and every change to them.

    Delivery ── admit ──> seat ── Ended ──> ledger ── stored ──> lease dropped
                 └─ refused ─────────────────^

Rules
 1. A seat is taken from the gate to `Ended`; a lease is held from the fetch to the stored settlement, or until it is lost.
 2. A lost attempt (another worker has the task) is told to end, keeps its seat until it has, and is then forgotten: nothing is settled.
 3. A revoke with `terminate` ends the exact attempt that it names; without, it ends only what has not begun.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import assert_never

from stem_iso.brokers.base import Broker, Delivery, Order, Receipt
from stem_iso.outcome import Stopped, StopReason
from stem_iso.worker.attempt import Attempt
from stem_iso.worker.desk import Desk
from stem_iso.worker.gates import Admitted, admit
from stem_iso.worker.hosts import Hosts
from stem_iso.worker.known import Handlers
from stem_iso.worker.leases import Leases
from stem_iso.worker.ledger import Ledger
from stem_iso.worker.messages import Beaten, Begun, Ended, IsolateChanged, LimitReached, Said, Trouble
from stem_iso.worker.reporter import Reporter
from stem_iso.worker.sayings import Sayings

monotonic = time.monotonic
AttemptMessage = Ended | Begun | Said | Beaten | LimitReached | IsolateChanged | Trouble


class Floor:
    """Owned by the consumer thread."""

    def __init__(self, desk: Desk, handlers: Handlers, hosts: Hosts, ledger: Ledger, reporter: Reporter, grace: float) -> None:
        self._desk, self._handlers, self._hosts, self._grace = desk, handlers, hosts, grace
        self.ledger, self._reporter = ledger, reporter
        self.leases, self.sayings = Leases(), Sayings(reporter)
        self._seated: dict[Receipt, Attempt] = {}

    def __len__(self) -> int:
        """How many seats are taken."""
        return len(self._seated)

    def ids(self) -> list[str]:
        return [attempt.envelope.id for attempt in self._seated.values()]

    # -- in ------------------------------------------------------------------------------------------------------------------------

    def leased(self, delivery: Delivery, now: float) -> None:
        self.leases.hold(delivery.receipt, delivery.visibility, now)
        self.ledger.seen(delivery.receipt.id)

    def admit(self, delivery: Delivery, broker: Broker) -> None:
        """Through the gates and into a seat, or straight to the ledger. Raises BrokerUnavailable with nothing done."""
        found = admit(delivery, self._handlers, time.time(), self._grace)
        attempt = Attempt(self._desk, delivery, found.envelope, found.policy)
        if not isinstance(found, Admitted):
            self.ledger.close(attempt, found.outcome, monotonic())
        elif not found.policy.acks_late and not broker.mark(delivery.receipt):
            self.leases.drop(delivery.receipt)
            self._reporter.trouble("the lease was lost before the task began: another worker has it", attempt)
        else:
            self._seated[delivery.receipt] = attempt
            self._hosts.run(attempt, found.job)

    def give_back(self, delivery: Delivery) -> None:
        """It was fetched, and will not run here: the worker is stopping."""
        found = admit(delivery, self._handlers, time.time(), self._grace)
        outcome = Stopped(StopReason.SHUTDOWN, started=False) if isinstance(found, Admitted) else found.outcome
        self.ledger.close(Attempt(self._desk, delivery, found.envelope, found.policy), outcome, monotonic())

    # -- what is told --------------------------------------------------------------------------------------------------------------

    def hear(self, message: AttemptMessage) -> None:
        match message:
            case Ended():
                self._ended(message)
            case Begun(attempt):
                self._reporter.started(attempt)
            case Said():
                self.sayings.hear(message)
            case Beaten(attempt):
                self.leases.beat(attempt.delivery.receipt)
                self._reporter.beaten(attempt)
            case LimitReached(attempt, notice):
                self._reporter.limit(attempt, notice)
            case IsolateChanged(notice):
                self._reporter.isolate(notice)
            case Trouble(text, traceback, about):
                self._reporter.trouble(text, about, traceback)
            case _:
                assert_never(message)

    def _ended(self, message: Ended) -> None:
        attempt = message.attempt
        receipt = attempt.delivery.receipt
        if self._seated.pop(receipt, None) is None:
            return  # given up before: its lease was left to run out
        self.sayings.forget(attempt)
        if attempt.lost or not self.ledger.close(attempt, message.outcome, message.at):
            self.leases.drop(receipt)

    # -- what is ordered -----------------------------------------------------------------------------------------------------------

    def lost(self, receipts: Iterable[Receipt]) -> None:
        """Other workers have these now."""
        for receipt in receipts:
            self.leases.drop(receipt)
            attempt = self._seated.get(receipt)
            if attempt is not None:
                attempt.lost = True
                attempt.stop(StopReason.LEASE_LOST)
                self._reporter.trouble("the lease was lost: another worker has the task, and what is done here does not count", attempt)

    def obey(self, orders: Iterable[Order]) -> None:
        for order in orders:
            attempt = self._seated.get(order.receipt)
            if attempt is not None and (order.terminate or not attempt.begun_at):
                attempt.stop(StopReason.REVOKED)

    def stop_unbegun(self) -> None:
        """What waits for an isolate goes back; a marked delivery is left to run, since it could not be given back once it had begun."""
        for attempt in self._seated.values():
            if not attempt.begun_at and attempt.policy.acks_late:
                attempt.stop(StopReason.SHUTDOWN)

    def stop_all(self) -> None:
        for attempt in self._seated.values():
            attempt.stop(StopReason.SHUTDOWN)

    def abandon(self, killable: bool, give_back: bool) -> None:
        """Wait no longer for these. Their leases run out, so that nobody starts them beside us; where the process ends now they go back."""
        for receipt, attempt in [each for each in self._seated.items() if each[1].killable is killable]:
            del self._seated[receipt]
            self.sayings.forget(attempt)
            if give_back and not attempt.lost:
                self.ledger.close(attempt, Stopped(StopReason.SHUTDOWN, started=True), monotonic())
            else:
                self.leases.drop(receipt)
                self._reporter.trouble("the worker stops while this still runs, and cannot end it; its lease is left to run out", attempt)

    def stored(self, attempts: Iterable[Attempt]) -> None:
        for attempt in attempts:
            self.leases.drop(attempt.delivery.receipt)
