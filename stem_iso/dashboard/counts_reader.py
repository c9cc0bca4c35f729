"""Reader of counts: one thread for each dashboard, which keeps a `CountsWindow` of the broker's last day.

    start ──> thread: the last hour, then the day before it, an hour at a time ──> every 2 s: the last two minutes ──> stop
    read(minute) ──> CountsSnapshot        from memory, by any thread

Rules
 1. A page never waits for the broker's counts: until the day is read, `ready` is False, and what is there is shown.
 2. A broker that is away is asked again with the next turn, from the minute on that was read last.
 3. Nobody has looked for a minute: it rests, and catches up with the next `read`.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stem_iso.dashboard.counts_window import DAY, HOUR, CountsWindow, Sums
from stem_iso.dashboard.shapes import CountSeries, SpanCounts
from stem_iso.errors import BrokerUnavailable

if TYPE_CHECKING:
    from stem_iso.app import Stem

TURN = 2.0  # seconds between two reads
REST = 60.0  # seconds without a look, after which nothing is read


@dataclass(frozen=True, slots=True)
class CountsSnapshot:
    """`spans`: by queue the hour and the day; "" is all queues. `none`: what stands for a queue of which nothing is known."""

    ready: bool
    hour: CountSeries
    day: CountSeries
    spans: dict[str, tuple[SpanCounts, SpanCounts]]
    none: tuple[SpanCounts, SpanCounts]


class CountsReader:
    def __init__(self, app: Stem) -> None:
        self._app = app
        self._changed = threading.Condition()  # guards all below
        self._window = CountsWindow()
        self._next = 0  # the first minute that may still change; 0: nothing was read
        self._older = 0  # the first minute that was read; the day before it is missing
        self._ready = False
        self._looked_at = time.monotonic()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._made: tuple[tuple[int, float], CountsSnapshot] | None = None  # of the last read, for those who come right after it
        self._version = 0.0

    def start(self) -> None:
        with self._changed:
            if self._thread is None:
                self._stopped = False
                self._thread = threading.Thread(target=self._run, name="stem_iso: dashboard counts", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopped, thread, self._thread = True, self._thread, None
            self._changed.notify_all()
        if thread is not None:
            thread.join(5.0)  # it may be held by a broker that is away; it is a daemon

    def read(self, minute: int) -> CountsSnapshot:
        """`minute`: the one that is now, wall clock // 60. Starts the thread where nobody has."""
        self.start()
        with self._changed:
            self._looked_at = time.monotonic()
            self._changed.notify_all()
            if self._made is None or self._made[0] != (minute, self._version):
                self._made = (minute, self._version), self._snapshot(minute)
            return self._made[1]

    def _snapshot(self, minute: int) -> CountsSnapshot:
        none = Sums().span()
        hour, day = self._window.series(HOUR, minute), self._window.series(DAY, minute)
        return CountsSnapshot(self._ready, hour, day, self._window.spans(), (none, none))

    # -- its thread ----------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                more = self._turn()
            except BrokerUnavailable:
                more = False
            with self._changed:
                if not more and not self._stopped:
                    self._changed.wait(TURN)
                while not self._stopped and time.monotonic() - self._looked_at > REST:
                    self._changed.wait()
                if self._stopped:
                    return

    def _turn(self) -> bool:
        """One read. True: there is more to be read at once."""
        now = int(self._app.clock() // 60)
        if self._next == 0:
            self._read(now - HOUR + 1, now, now)
            self._next, self._older = now, now - HOUR + 1
            return True
        # A worker hands a minute over within seconds of its end, so the one before is read once more.
        self._read(max(self._next - 1, now - HOUR + 1), now, now)
        self._next = now
        if self._ready:
            return False
        first = max(self._older - HOUR, now - DAY + 1)
        self._read(first, self._older - 1, now)
        self._older = first
        with self._changed:
            self._ready = first <= now - DAY + 1
        return not self._ready

    def _read(self, first: int, last: int, now: int) -> None:
        if first > last:
            return
        with self._app.broker_pool.borrow() as broker:
            counts = broker.counts(first, last)
        with self._changed:
            self._window.put(first, last, counts, now)
            self._version += 1
