"""The attempts in flight: which seat and which lease each has, and every change to them.

    Delivery ── admit ──> seat ── AttemptEnded ──> settlements ── stored ──> lease dropped
                 ├─ refused ────────────────────────^
                 └─ its task is paused, or its limits are taken: it waits in the broker

Rules
 1. A seat is taken from admission to `AttemptEnded`; a lease is held from the fetch to the stored settlement, or until it is lost.
 2. A lost attempt (another worker has the task) is stopped, keeps its seat until it has ended, and is then forgotten: nothing is settled.
 3. A revoke with `terminate` ends the exact attempt that it names; without, it ends only what has not begun.
 4. While tasks are short, some are submitted beyond the seats (`prefetch`): the engine then fills a seat by itself, without waking this
    thread. What waits there for too long, or while the worker drains, is withdrawn and goes back to the queue.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from typing import assert_never

from stem_iso.brokers.base import Broker, Delivery, Permit, Receipt, Revocation, Verdict
from stem_iso.outcome import Stopped, StopReason, Unregistered
from stem_iso.task.rate_limit import TaskLimits
from stem_iso.validation import did_you_mean
from stem_iso.worker.admission import Admitted, HandlerCache, Refused, admit
from stem_iso.worker.attempt import Attempt, AttemptEnded, Beaten, Begun, HandlerMessage, IsolateChanged, LimitReached, Trouble
from stem_iso.worker.attempt_port import AttemptReports
from stem_iso.worker.context_requests import ContextRequests
from stem_iso.worker.dispatcher import Dispatcher
from stem_iso.worker.inline.call import InlineJob
from stem_iso.worker.intake import Intake
from stem_iso.worker.leases import Leases
from stem_iso.worker.pending_settlements import PendingSettlements
from stem_iso.worker.prefetch import PATIENCE, Pace
from stem_iso.worker.reporting.events import EventEmitter

UNKNOWN = 1_000  # names of tasks that are remembered as unknown: anybody may enqueue under any name

monotonic = time.monotonic
AttemptMessage = AttemptEnded | Begun | HandlerMessage | Beaten | LimitReached | IsolateChanged | Trouble


class Attempts:
    """Owned by the consumer thread."""

    def __init__(
        self,
        port: AttemptReports,
        handlers: HandlerCache,
        hosts: Dispatcher,
        settlements: PendingSettlements,
        events: EventEmitter,
        *,
        intake: Intake,
        grace: float,
        record_changed: Callable[[], None],
        unknown: set[str],
    ) -> None:
        """`unknown` is filled with the names of tasks that were given back for want of a handler; `record_changed`: what others see of this
        worker has, in its isolates or in the cores of a task."""
        self._port, self._handlers, self._hosts, self.intake, self._grace = port, handlers, hosts, intake, grace
        self.record_changed, self._unknown = record_changed, unknown
        self.settlements, self._events = settlements, events
        self.leases, self.requests, self.pace = Leases(), ContextRequests(events), Pace()
        self._seated: dict[Receipt, Attempt] = {}
        self.lined_up = False  # something was put in line for its limits, so what the store said is due next may be out of date
        self._inline = 0  # how many attempts run in this process
        self._ahead: deque[tuple[float, Attempt]] = deque()  # (since when, attempt) of those submitted beyond the seats, the oldest first

    def __len__(self) -> int:
        """How many seats are taken."""
        return len(self._seated)

    def ids(self) -> list[str]:
        return [attempt.envelope.id for attempt in self._seated.values()]

    @property
    def room(self) -> int:
        """How many attempts may be here: the seats, and what may wait at the engine for one. Inline handlers need a seat to begin."""
        return self.intake.seats + (0 if self._inline else self.pace.stock(self.intake.seats))

    @property
    def waiting(self) -> int:
        return max(0, len(self._seated) - self.intake.seats)

    def stale_at(self) -> float:
        """When the oldest one that waits beyond the seats has waited for too long."""
        while self._ahead and self._ahead[0][1].begun_at:
            self._ahead.popleft()
        return self._ahead[0][0] + PATIENCE if self._ahead else inf

    def drop_strays(self, at_hand: Iterable[Delivery]) -> None:
        """Leases that nobody here answers for: an error lost their deliveries on the way. They come back when they have run out."""
        accounted = {*self._seated, *self.settlements.receipts(), *(delivery.receipt for delivery in at_hand)}
        for receipt in self.leases.keep(accounted):
            self._events.trouble(f"task {receipt.id} was lost here by an error; it comes back when its lease has run out")

    # -- deliveries ----------------------------------------------------------------------------------------------------------------

    def leased(self, delivery: Delivery, now: float) -> None:
        self.leases.hold(delivery.receipt, delivery.visibility, now)
        self.settlements.seen(delivery.receipt.id)

    def admit(self, delivery: Delivery, broker: Broker, ahead: bool) -> bool:
        """Into a seat, or straight to the settlements where it is refused. Raises BrokerUnavailable with nothing done.

        `ahead`: all seats are taken, so the delivery may only wait at the engine. False for one that cannot wait there, with nothing done.
        """
        found = admit(delivery, self._handlers, time.time(), self._grace, self._events.worker_id)
        if ahead and isinstance(found, Admitted) and _needs_a_seat(found):
            return False
        attempt = Attempt(self._port, delivery, found.envelope, found.policy)
        if not isinstance(found, Admitted):
            if isinstance(found.outcome, Unregistered):
                self._report_unknown(found)
            self.settlements.close(attempt, found.outcome, monotonic())
        elif found.envelope.name in self.intake.paused.tasks and not self._runs_though_paused(attempt, broker):
            pass  # the broker has put it aside, or it is lost
        elif found.policy.limits is not None and not self._may_begin(attempt, found.policy.limits, broker):
            pass  # the broker has put it in line, or it is lost
        elif not found.policy.acks_late and not broker.mark(delivery.receipt):
            self._lost_unbegun(attempt)
        else:
            self._events.signals.received(attempt)
            self._hosts.run(attempt, found.job)  # calls back through the inbox, so seating the attempt afterwards misses nothing
            self._seated[delivery.receipt] = attempt
            self._inline += not attempt.killable
            if ahead:
                self._ahead.append((monotonic(), attempt))
        return True

    def _report_unknown(self, found: Refused) -> None:
        """Once for each name, at its first delivery: whoever mistyped it need not wait for the end of the grace."""
        name = found.envelope.name
        if name not in self._unknown and len(self._unknown) < UNKNOWN:
            self._unknown.add(name)
            becomes = "dead-lettered" if found.outcome == Unregistered(grace_over=True) else f"given back, for {self._grace:g} s at most"
            self._events.warn(f"no task is named {name!r} here{did_you_mean(name, self._handlers.names(), '')}: it is {becomes}")

    def _may_begin(self, attempt: Attempt, limits: TaskLimits, broker: Broker) -> bool:
        """Whether its limits let it begin. The last check, and for a free seat only: what is counted as begun begins now."""
        permit = broker.acquire(attempt.delivery.receipt, limits, attempt.envelope.expires)
        if self._permitted(attempt, permit):
            return True
        if permit.verdict is Verdict.DONE:
            self.settlements.lined_up(attempt.envelope.id, time.time() + permit.wait)
        return False

    def _runs_though_paused(self, attempt: Attempt, broker: Broker) -> bool:
        """Whether its task was resumed meanwhile. Else it waits in the broker until that, and nobody here waits for it."""
        return self._permitted(attempt, broker.hold(attempt.delivery.receipt, attempt.envelope.name))

    def _permitted(self, attempt: Attempt, permit: Permit) -> bool:
        if permit.verdict is Verdict.DONE and not permit.wait:
            return True
        if permit.verdict is Verdict.LOST:
            self._lost_unbegun(attempt)
            return False
        self.leases.drop(attempt.delivery.receipt)
        if permit.verdict is Verdict.CANCELLED:
            self._events.revoked(attempt, "revoked")
        else:
            self.lined_up = True
        return False

    def _lost_unbegun(self, attempt: Attempt) -> None:
        self.leases.drop(attempt.delivery.receipt)
        self._events.trouble("the lease was lost before the task began: another worker has it", attempt)

    def give_back(self, delivery: Delivery) -> None:
        """The worker is stopping: this delivery was fetched, and will not run here."""
        found = admit(delivery, self._handlers, time.time(), self._grace)
        outcome = Stopped(StopReason.SHUTDOWN, started=False) if isinstance(found, Admitted) else found.outcome
        self.settlements.close(Attempt(self._port, delivery, found.envelope, found.policy), outcome, monotonic())

    # -- messages ------------------------------------------------------------------------------------------------------------------

    def on_message(self, message: AttemptMessage) -> None:
        match message:
            case AttemptEnded():
                self._ended(message)
            case Begun(attempt):
                self._events.started(attempt)
                if attempt.policy.cpus is not None:
                    self.record_changed()
            case HandlerMessage():
                self.requests.on_message(message)
            case Beaten(attempt):
                self.leases.beat(attempt.delivery.receipt)
                self._events.beaten(attempt)
            case LimitReached(attempt, notice):
                self._events.limit(attempt, notice)
            case IsolateChanged(notice):
                self._events.isolate(notice)
                self.record_changed()
            case Trouble(text, traceback, about):
                self._events.trouble(text, about, traceback)
            case _:
                assert_never(message)

    def _ended(self, message: AttemptEnded) -> None:
        attempt = message.attempt
        receipt = attempt.delivery.receipt
        if self._seated.pop(receipt, None) is None:
            return  # abandoned before: its lease was left to run out
        self._inline -= not attempt.killable
        self.requests.forget(attempt)
        if attempt.policy.cpus is not None:
            self.record_changed()
        self._events.ended(attempt, message.outcome)
        self.pace.ended(message.at - attempt.begun_at if attempt.begun_at else 0.0)
        if attempt.lost or not self.settlements.close(attempt, message.outcome, message.at):
            self.leases.drop(receipt)

    # -- losses, revocations, stops ------------------------------------------------------------------------------------------------

    def lost(self, receipts: Iterable[Receipt]) -> None:
        """Other workers have these now."""
        for receipt in receipts:
            self.leases.drop(receipt)
            attempt = self._seated.get(receipt)
            if attempt is not None:
                attempt.lost = True
                attempt.stop(StopReason.LEASE_LOST)
                self._events.trouble("the lease was lost: another worker has the task, and what is done here does not count", attempt)

    def revoke(self, orders: Iterable[Revocation]) -> None:
        for order in orders:
            attempt = self._seated.get(order.receipt)
            if attempt is not None and not self._withdrawn(attempt, StopReason.REVOKED) and order.terminate:
                attempt.stop(StopReason.REVOKED)
                if not attempt.alone:
                    text = "it is revoked, and cannot be ended: an inline sync handler runs to its end; isolated ones are killed"
                    self._events.trouble(text, attempt)

    def give_back_unbegun(self) -> None:
        """What waits for an isolate goes back to the queue; what has begun is left alone."""
        self._ahead.clear()
        for attempt in list(self._seated.values()):
            self._withdrawn(attempt, StopReason.SHUTDOWN)

    def give_back_unwanted(self) -> None:
        """The intake has changed: what has not begun, and may not begin any more or has no seat, goes back to the queue."""
        over = len(self._seated) > self.intake.seats
        for attempt in list(self._seated.values()):
            if over or not self.intake.takes(attempt.delivery.queue, attempt.envelope.name):
                self._withdrawn(attempt, StopReason.SHUTDOWN)

    def count_begun(self) -> None:
        """Those that began since the last count, and still run."""
        for attempt in self._seated.values():
            if attempt.begun_at and not attempt.counted:
                self._events.begun(attempt)

    def give_back_ahead(self) -> None:
        """What waits beyond the seats goes back: it could run elsewhere."""
        while self._ahead:
            self._withdrawn(self._ahead.popleft()[1], StopReason.SHUTDOWN)

    def _withdrawn(self, attempt: Attempt, reason: StopReason) -> bool:
        if attempt.delivery.receipt not in self._seated or not attempt.withdraw():
            return False
        del self._seated[attempt.delivery.receipt]
        self.settlements.close(attempt, Stopped(reason, started=False), monotonic())
        return True

    def stop_all(self) -> None:
        for attempt in self._seated.values():
            attempt.stop(StopReason.SHUTDOWN)

    def abandon(self, killable: bool) -> None:
        """Wait no longer for these. Their leases are left to run out, so that nobody starts them while they still run here."""
        for receipt, attempt in [each for each in self._seated.items() if each[1].killable is killable]:
            del self._seated[receipt]
            self._inline -= not attempt.killable
            self.requests.forget(attempt)
            self.leases.drop(receipt)
            self._events.trouble("the worker stops while this still runs, and cannot end it; its lease is left to run out", attempt)

    def stored(self, attempts: Iterable[Attempt]) -> None:
        for attempt in attempts:
            self.leases.drop(attempt.delivery.receipt)


def _needs_a_seat(found: Admitted) -> bool:
    """Whether it begins as soon as it is admitted, so that it cannot wait at the engine."""
    return isinstance(found.job, InlineJob) or not found.policy.acks_late or found.policy.limits is not None
