"""The shutdown of a worker: its phases as a table, their deadlines, and what each begins with.

               drain requested             grace over, or at once             nothing runs                 stored, or given up
    RUNNING ────────────────> DRAINING ─────────────────────────> KILLING ───────────────> STORING ───────────────────────> OVER
       └──────────────────────────────── at once ────────────────────^
               DRAINING ── nothing runs ──────────────────────────────────────────────────────^

    RUNNING    fetches
    DRAINING   fetches nothing; what has not begun goes back; what runs goes on for `shutdown_timeout`, with its limits, renewals and
               context requests
    KILLING    every attempt is stopped. What can be killed is killed, an inline host after its coroutines have had 2 s; all that has 15 s,
               since a process in uninterruptible sleep outlasts any signal. Inline handlers in this process have 2 s. Nothing is settled
               before it has ended
    STORING    the last outcomes go to the broker, which has 5 s to come back if it is away

A stop may be asked for in any phase. No phase comes twice. `requested` and `moved` decide, and are pure; `Shutdown` acts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import IntEnum
from math import inf

from stem_iso.worker.attempts import Attempts
from stem_iso.worker.options import WorkerOptions
from stem_iso.worker.reporting.events import EventEmitter

COROUTINES_END, ISOLATES_END, STORES_END = 2.0, 15.0, 5.0


class ShutdownPhase(IntEnum):
    RUNNING = 0
    DRAINING = 1
    KILLING = 2
    STORING = 3
    OVER = 4


class StopRequest(IntEnum):
    DRAIN = 0
    AT_ONCE = 1


PHASE_OF_REQUEST = {StopRequest.DRAIN: ShutdownPhase.DRAINING, StopRequest.AT_ONCE: ShutdownPhase.KILLING}


def requested(phase: ShutdownPhase, request: StopRequest) -> ShutdownPhase:
    return max(phase, PHASE_OF_REQUEST[request])


def moved(phase: ShutdownPhase, *, running: int, unstored: int, grace_over: bool, patience_over: bool) -> ShutdownPhase:
    """The phase after a look at the facts. `patience_over`: this phase has taken longer than it may."""
    if phase is ShutdownPhase.DRAINING and grace_over:
        phase = ShutdownPhase.KILLING
    if phase in (ShutdownPhase.DRAINING, ShutdownPhase.KILLING) and not running:
        phase = ShutdownPhase.STORING
    if phase is ShutdownPhase.STORING and (not unstored or patience_over):
        phase = ShutdownPhase.OVER
    return phase


class Shutdown:
    """Owned by the consumer thread. `give_back` empties what the consumer has at hand."""

    def __init__(self, options: WorkerOptions, attempts: Attempts, events: EventEmitter, give_back: Callable[[], None]) -> None:
        self._options, self._attempts, self._events, self._give_back = options, attempts, events, give_back
        self.phase = ShutdownPhase.RUNNING
        self.running, self.over = True, False  # of the phase; each turn of the consumer asks a dozen times
        self._grace_at = self._inline_at = self._isolates_at = self._stored_at = inf

    def bound(self) -> float:
        """When to look again at the latest."""
        return min(self._grace_at, self._inline_at, self._isolates_at, self._stored_at)

    def settled(self) -> bool:
        """Nothing is left to wait for."""
        return self.phase is ShutdownPhase.STORING and not self._attempts.settlements

    def request(self, at_once: bool, now: float) -> None:
        self._enter(requested(self.phase, StopRequest.AT_ONCE if at_once else StopRequest.DRAIN), now)

    def advance(self, now: float, at_hand: int) -> None:
        """`at_hand`: deliveries that are not yet attempts."""
        if self.running:
            return
        if now >= self._inline_at:
            self._inline_at = inf
            self._attempts.abandon(killable=False)
        if now >= self._isolates_at:
            self._isolates_at = inf
            self._attempts.abandon(killable=True)
        self._enter(
            moved(
                self.phase,
                running=len(self._attempts) + at_hand,
                unstored=len(self._attempts.settlements),
                grace_over=now >= self._grace_at,
                patience_over=now >= self._stored_at,
            ),
            now,
        )

    def _enter(self, phase: ShutdownPhase, now: float) -> None:
        if phase is self.phase:
            return
        if self.running:
            self._events.signals.stopping(at_once=phase is ShutdownPhase.KILLING)
            self._attempts.settlements.stopping = True
            self._attempts.record_changed()
        self.phase, self.running, self.over = phase, False, phase is ShutdownPhase.OVER
        match phase:
            case ShutdownPhase.DRAINING:
                self._grace_at = now + self._options.shutdown_timeout
                self._attempts.give_back_unbegun()
                self._give_back()
            case ShutdownPhase.KILLING:
                self._grace_at, self._inline_at, self._isolates_at = inf, now + COROUTINES_END, now + ISOLATES_END
                if running := len(self._attempts):
                    self._events.note(logging.INFO, f"stopping: {running} still running, killed now")
                self._attempts.stop_all()
                self._give_back()
            case ShutdownPhase.STORING:
                self._grace_at = self._inline_at = self._isolates_at = inf
                self._stored_at = now + STORES_END
            case ShutdownPhase.OVER:
                self._report()
            case _:
                pass

    def _report(self) -> None:
        settlements = self._attempts.settlements
        if unstored := len(settlements):
            self._events.trouble(f"{unstored} outcomes could not be stored, the broker is away; their leases are left to run out")
        if settlements.given_back:
            unbegun = settlements.given_back - settlements.killed
            self._events.note(logging.INFO, f"stopped: {settlements.killed} killed and given back, {unbegun} given back that had not begun")
