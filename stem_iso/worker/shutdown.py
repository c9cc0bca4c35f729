"""The shutdown of a worker: the phases of `phase`, with their deadlines and what each of them begins with.

DRAINING   what has not begun goes back; the rest has `shutdown_timeout`
KILLING    every attempt is stopped. What can be killed is killed, an inline host after its coroutines have had 2 s; all that has 15 s,
           since a process in uninterruptible sleep outlasts any signal. Inline handlers in this process have 2 s
STORING    the broker has 5 s to come back
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from stem_iso.worker.attempts import Attempts
from stem_iso.worker.options import WorkerOptions
from stem_iso.worker.phase import Ask, ShutdownPhase, asked, moved
from stem_iso.worker.reporting.events import EventEmitter

COROUTINES_END, ISOLATES_END, STORES_END = 2.0, 15.0, 5.0


class Shutdown:
    """Owned by the consumer thread. `give_back` empties what the consumer has at hand."""

    def __init__(self, options: WorkerOptions, floor: Attempts, reporter: EventEmitter, give_back: Callable[[], None]) -> None:
        self._options, self._floor, self._reporter, self._give_back = options, floor, reporter, give_back
        self.phase = ShutdownPhase.RUNNING
        self._grace_at = self._inline_at = self._isolates_at = self._stored_at = inf

    @property
    def over(self) -> bool:
        return self.phase is ShutdownPhase.OVER

    @property
    def running(self) -> bool:
        return self.phase is ShutdownPhase.RUNNING

    def bound(self) -> float:
        """When to look again at the latest."""
        return min(self._grace_at, self._inline_at, self._isolates_at, self._stored_at)

    def settled(self) -> bool:
        """Nothing is left to wait for."""
        return self.phase is ShutdownPhase.STORING and not self._floor.ledger

    def ask(self, at_once: bool, now: float) -> None:
        self._enter(asked(self.phase, Ask.AT_ONCE if at_once else Ask.DRAIN), now)

    def look(self, now: float, at_hand: int) -> None:
        """`at_hand`: deliveries that are not yet attempts."""
        if self.running:
            return
        if now >= self._inline_at:
            self._inline_at = inf
            self._floor.abandon(killable=False)
        if now >= self._isolates_at:
            self._isolates_at = inf
            self._floor.abandon(killable=True)
        self._enter(
            moved(
                self.phase,
                running=len(self._floor) + at_hand,
                unstored=len(self._floor.ledger),
                grace_over=now >= self._grace_at,
                patience_over=now >= self._stored_at,
            ),
            now,
        )

    def _enter(self, phase: ShutdownPhase, now: float) -> None:
        if phase is self.phase:
            return
        if self.running:
            self._reporter.teller.stopping(at_once=phase is ShutdownPhase.KILLING)
        self.phase = phase
        match phase:
            case ShutdownPhase.DRAINING:
                self._grace_at = now + self._options.shutdown_timeout
                self._floor.give_back_unbegun()
                self._give_back()
            case ShutdownPhase.KILLING:
                self._grace_at, self._inline_at, self._isolates_at = inf, now + COROUTINES_END, now + ISOLATES_END
                self._floor.stop_all()
                self._give_back()
            case ShutdownPhase.STORING:
                self._grace_at = self._inline_at = self._isolates_at = inf
                self._stored_at = now + STORES_END
            case ShutdownPhase.OVER if unstored := len(self._floor.ledger):
                text = f"{unstored} outcomes could not be stored, the broker is away; their leases are left to run out"
                self._reporter.trouble(text)
            case _:
                pass
