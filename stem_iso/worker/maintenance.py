"""The maintenance of the queue by a worker: small objects of one shape (`Chore`) that the consumer runs when they are due.

    Recoverer            leases that ran out             every claim_interval, after our own were renewed; those of a dead worker at once
    Takeover             workers that died               every second; in `takeover`
    RevocationPoller     revokes of what we hold         when the watch fires, at most every 20 ms
    EndNoticePublisher   ends that no worker has seen    when the watch fires, at most every 0.25 s
    Sweeper              what has expired                every 5 s, at once again while there is more
    Scheduler            what comes due by schedule      at its time; in `scheduler`
    Heartbeat            "this worker lives"             every 2 s, and soon after its record changed: isolates, cores, seats, drain
    PauseReader          what is paused                  every 5 s, and by command
    CountFlusher         what happened to tasks          every second; in minutes, as `reporting.counters` has it
    CommandPoller        what operators ask for          when the watch fires, and every second; in `commands`

Rules
 1. `run` may raise BrokerUnavailable; `due` then stands, and the consumer comes back when the broker does.
 2. No chore waits for anything but the broker's answers.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection
from itertools import groupby
from typing import Protocol

import msgspec

from stem_iso.brokers.base import Broker, Receipt, Revocation, WorkerInfo
from stem_iso.brokers.operations import TaskCounts
from stem_iso.worker.intake import Intake
from stem_iso.worker.options import WorkerOptions
from stem_iso.worker.reporting.counters import Counters
from stem_iso.worker.reporting.events import EventEmitter

BEAT_EVERY, BEAT_SOON, BEAT_LEAST = 2.0, 0.2, 0.5  # the last: between two beats, however often the record changes
PAUSES_EVERY = 5.0
FLUSH_EVERY, ROWS_AT_ONCE = 1.0, 500
SWEEP_EVERY = 5.0
REVOCATIONS_EVERY = 0.02
END_NOTICES_EVERY = 0.25


class Chore(Protocol):
    due: float  # monotonic

    def run(self, broker: Broker, now: float) -> None: ...


class LostWorker(msgspec.Struct):
    """A boot whose leases are taken, all of them. `dead` is its worker, None for a core of our own launcher; `taken` counts them."""

    boot: str
    dead: WorkerInfo | None = None
    taken: int = 0


class Recoverer:
    """`held`: the receipts of this worker. A lease of this worker that is not among them was lost by an error, and is redelivered too."""

    def __init__(self, options: WorkerOptions, interval: float, events: EventEmitter, held: Collection[Receipt]) -> None:
        self._boot, self._interval, self._events, self._held = options.boot, interval, events, held
        self._lost = deque(LostWorker(boot) for boot in options.origin.predecessors)
        self.due = 0.0
        self.found = False  # something was redelivered, so that an exchange is worth its price

    @property
    def pending(self) -> bool:
        """Whether leases of a lost worker are still to be taken."""
        return bool(self._lost)

    def take_over(self, dead: WorkerInfo) -> None:
        self._lost.append(LostWorker(dead.boot, dead))
        self.due = 0.0

    def run(self, broker: Broker, now: float) -> None:
        lost = self._lost[0] if self._lost else None
        reclaimed = broker.reclaim(self._boot, None if lost is None else lost.boot, self._held)
        self.found = self.found or bool(reclaimed)
        for each in reclaimed:
            self._events.reclaimed(each)
        if lost is not None:
            taken = sum(each.boot == lost.boot for each in reclaimed)
            lost.taken += taken
            if not taken:  # a reclaim takes a bounded number: none are left
                self._over(broker, lost)
        self.due = now if self._lost else now + self._interval

    def _over(self, broker: Broker, lost: LostWorker) -> None:
        if lost.dead is not None:
            broker.remove_dead_worker(lost.dead)
        self._lost.popleft()
        if lost.dead is not None and lost.taken:
            who = f"worker {lost.dead.id} (pid {lost.dead.pid})"
            why = "died without a goodbye: none of its processes is left on this machine"
            self._events.trouble(f"{who} {why}; {lost.taken} of its tasks are redelivered")


class RevocationPoller:
    def __init__(self, boot: str, revoke: Callable[[list[Revocation]], None]) -> None:
        self._boot, self._revoke = boot, revoke
        self.due = float("inf")
        self._last = 0.0

    def notified(self, now: float) -> None:
        """The watch fired: there is something new, perhaps a revocation."""
        self.due = min(self.due, max(now, self._last + REVOCATIONS_EVERY))

    def run(self, broker: Broker, now: float) -> None:
        orders = broker.revocations(self._boot)
        self._last, self.due = now, float("inf")
        self._revoke(orders)


class EndNoticePublisher:
    """Emits the end of what was revoked or purged while it waited, and of canvases that failed. The first worker to ask gets each."""

    def __init__(self, events: EventEmitter) -> None:
        self._events = events
        self.due = 0.0
        self._last = 0.0

    def notified(self, now: float) -> None:
        self.due = min(self.due, max(now, self._last + END_NOTICES_EVERY))

    def run(self, broker: Broker, now: float) -> None:
        found = broker.unattended_ends()
        self._last, self.due = now, now if found else float("inf")
        for each in found:
            self._events.unattended_end(each)


class Sweeper:
    def __init__(self) -> None:
        self.due = time.monotonic() + SWEEP_EVERY

    def run(self, broker: Broker, now: float) -> None:
        self.due = now + (0.05 if broker.sweep() else SWEEP_EVERY)


class Heartbeat:
    def __init__(self, describe: Callable[[], WorkerInfo]) -> None:
        self._describe = describe
        self.due = 0.0
        self._last = 0.0

    def soon(self) -> None:
        """Beat soon: the record has changed."""
        self.due = min(self.due, max(time.monotonic() + BEAT_SOON, self._last + BEAT_LEAST))

    def run(self, broker: Broker, now: float) -> None:
        broker.beat(self._describe())
        self._last, self.due = now, now + BEAT_EVERY


class PauseReader:
    """Commands say at once that something was paused; who reads by itself as well has never missed one for long."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self.due = 0.0

    def run(self, broker: Broker, now: float) -> None:
        self._intake.pause(broker.paused())
        self.due = now + PAUSES_EVERY


class CountFlusher:
    """`count_begun` counts the attempts that have begun since: nobody else says that of those that take long."""

    def __init__(self, counters: Counters, count_begun: Callable[[], None]) -> None:
        self._counters, self._count_begun = counters, count_begun
        self.due = time.monotonic() + FLUSH_EVERY

    def run(self, broker: Broker, now: float) -> None:
        more = self._store(broker)
        self.due = now if more else now + FLUSH_EVERY

    def flush(self, broker: Broker) -> None:
        """All of it, at the end of the worker."""
        while self._store(broker):
            pass

    def _store(self, broker: Broker) -> bool:
        """Whether there may be more. Queue by queue, since one of them may be on a node that is away: what the others took is done."""
        self._count_begun()
        rows = sorted(self._counters.take(ROWS_AT_ONCE), key=_queue)
        stored = 0
        try:
            for _, found in groupby(rows, _queue):
                of_queue = list(found)
                broker.add_counts(of_queue)
                stored += len(of_queue)
        finally:
            self._counters.put_back(rows[stored:])
        return len(rows) == ROWS_AT_ONCE


def _queue(row: TaskCounts) -> str:
    return row.queue
