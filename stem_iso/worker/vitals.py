"""Vitals of a worker: what other threads may know of it while it runs, for probes, metrics, and the service manager.

    consumer ── turned, reached, lost ──> Vitals ──┬──> the server of metrics: /healthz, /readyz
                                            │      └──> totals, isolates: what /metrics is made of
                                            └── report, while the loop turns ──> the launcher ──> the service manager

Each field is written by the consumer thread alone, in one step; a reader takes what stands there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from time import monotonic

from stem_iso.worker.reporting.counters import Totals

HUNG = 60.0  # seconds without a turn of the loop: its longest rest is 5 s, and a broker's answer may take 30


@dataclass(frozen=True, slots=True)
class StateReporter:
    """Where the loop reports to, and how often at least (seconds)."""

    send: Callable[[str], None]
    every: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Of an open worker; both may be called from any thread."""

    totals: Callable[[], Totals]
    isolates: Callable[[], dict[str, int]]


class Vitals:
    """Of one worker. `figures`: None before it is open."""

    def __init__(self, reporter: StateReporter | None = None, clock: Callable[[], float] = monotonic) -> None:
        self._reporter, self._clock = reporter, clock
        self.figures: Figures | None = None
        self.broker_up = False
        self.stopping = False
        self._turned_at = inf  # before the first turn nothing hangs
        self.due = -inf if reporter is not None else inf  # when the loop is to turn at the latest, to report

    # -- the consumer's side -------------------------------------------------------------------------------------------------------

    def opened(self, figures: Figures) -> None:
        """The worker is built, and the broker has answered it."""
        self.figures, self.broker_up = figures, True

    def turned(self, now: float, busy: int, seats: int, stopping: bool) -> None:
        """The loop has come round, with so many seats busy."""
        self._turned_at, self.stopping = now, stopping
        if now >= self.due and self._reporter is not None:
            self.due = now + self._reporter.every
            self._reporter.send(f"{busy} of {seats} seats busy{self._addition()}")

    def _addition(self) -> str:
        return (", stopping" if self.stopping else "") + ("" if self.broker_up else ", the broker is away")

    # -- any thread ----------------------------------------------------------------------------------------------------------------

    def unhealthy(self) -> str | None:
        """Why the worker is to be started anew; None while all is well."""
        still = self._clock() - self._turned_at
        return f"the worker's loop has not turned for {still:.0f} s" if still > HUNG else None

    def unready(self) -> str | None:
        """Why it would run no task now; None while it would. One that operators drain, or whose queues they paused, is ready."""
        if self.stopping:
            return "the worker is stopping"
        if self._turned_at == inf:
            return "the worker is starting"
        return self.unhealthy() if self.broker_up else "the broker is away"
