"""The scheduler, which fires schedules: every worker has one, and the broker decides who fires which due time.

    start ── put what the application declares, remove what it no longer does
    due   ── read all schedules ── plan each ── fire ──> queue           sleep until the earliest that comes next

Rules
 1. A look is one read of a small table. It is taken when a due time has come, when the watch fired (at most once a second: mostly that
    means new tasks), and every 30 s, since the wall clock may have been set, or the machine may have slept.
 2. Firing needs no handler's code, so any worker of the broker fires any schedule, whatever queues it serves.
 3. A schedule that cannot be planned here (no cronsim, no such zone) is reported once, and left to others.
 4. A worker that drains goes on firing: what it fires is for whoever fetches.

A due time fires by the wall clock of whoever fires it first: machines whose clocks differ fire as early as the fastest of them. A clock
that is set back fires nothing before it has come again to where it was, since each due time is fired once; a pause and a resume plan anew.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import inf

from stem_iso.brokers.base import Broker, ScheduleRecord
from stem_iso.task.schedule import Plan, Schedule, decode_schedule, fired, plan
from stem_iso.worker.reporting.events import EventEmitter

POLL_EVERY = 1.0  # seconds between looks that only the watch asked for
LONGEST_SLEEP = 30.0


class Scheduler:
    """`declared`: what the application's code declares, under its place `owner` ("": nobody can import it)."""

    def __init__(self, declared: Sequence[ScheduleRecord], owner: str, events: EventEmitter) -> None:
        self._declared, self._owner, self._events = declared, owner, events
        self._brought = False
        self._polled_at = -inf
        self._waiting: dict[str, tuple[ScheduleRecord, Schedule, Plan]] = {}  # as of the last look, so that the next one is cheap
        self._reported: dict[str, str] = {}  # name -> the revision that cannot be fired here
        self.due = 0.0
        self.fired = False  # so that an exchange is worth its price

    def notified(self, now: float) -> None:
        """The watch fired: there is something new, perhaps a schedule."""
        self.due = min(self.due, max(now, self._polled_at + POLL_EVERY))

    def run(self, broker: Broker, now: float) -> None:
        if not self._brought:
            self._bring(broker)
        self._polled_at = now
        records = broker.schedules()
        self._forget({record.name for record in records})
        earliest = min((self._next(broker, record) for record in records if not record.paused), default=inf)
        self.due = time.monotonic() + min(max(0.0, earliest - time.time()), LONGEST_SLEEP)

    def _bring(self, broker: Broker) -> None:
        for record in self._declared:
            broker.put_schedule(record)
        names = {record.name for record in self._declared}
        for record in broker.schedules() if self._owner else ():
            if record.owner == self._owner and record.name not in names:
                broker.remove_schedule(record.name)
        self._brought = True

    def _next(self, broker: Broker, record: ScheduleRecord) -> float:
        """Fire what is due; when to look again for this one."""
        try:
            return self._fire(broker, record)
        except (ValueError, OverflowError, RecursionError) as error:
            # InvalidOptions, Undecodable, PayloadTooLarge, a time of no calendar: what is stored cannot be used here.
            if self._reported.get(record.name) != record.revision:
                self._reported[record.name] = record.revision
                self._events.trouble(f"schedule {record.name!r} cannot be fired by this worker: {error}")
            return inf

    def _fire(self, broker: Broker, record: ScheduleRecord) -> float:
        schedule, planned = self._planned(record)
        now = time.time()
        if planned.at > now:
            return planned.at
        planned = plan(schedule, record.due, now)
        if not broker.fire(record, planned.due, fired(schedule, planned.fire, now)):
            return now  # another worker was faster, or somebody changed it: the next look shows which
        self.fired = self.fired or bool(planned.fire)
        return planned.at

    def _planned(self, record: ScheduleRecord) -> tuple[Schedule, Plan]:
        """The plan as it was when nothing was due: how long to wait."""
        known = self._waiting.get(record.name)
        if known is None or (known[0].revision, known[0].due) != (record.revision, record.due):
            schedule = known[1] if known is not None and known[0].revision == record.revision else decode_schedule(record.body)
            known = self._waiting[record.name] = record, schedule, plan(schedule, record.due, -inf)
        return known[1], known[2]

    def _forget(self, names: set[str]) -> None:
        for removed in self._waiting.keys() - names:
            del self._waiting[removed]
        for removed in self._reported.keys() - names:
            del self._reported[removed]
