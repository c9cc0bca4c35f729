"""A call of an inline host, as the core holds it: its clocks, and what its host's death means for it. Pure: `now` comes in.

   sent ──── soft ── +50 ms ──── hard, or silence ── +50 ms ──────── +2 s          sent ── +2 s
                     Alarm.SOFT                      Alarm.STACK     Alarm.OVER              Alarm.UNREAD

Rules
 1. The host keeps the limits, and says so; the core's alarms ring only where it could not, because C code keeps its interpreter lock. SOFT
    asks the call's thread for its stack by a signal, and tells of the limit; STACK does so for the hard limit.
 2. OVER: the call was told to end, by a limit or a stop, and has not within its grace. It ends with its host (`hosting`).
 3. A thread cannot be told to end. Only a shutdown ends it, with its host, and then at once: it has no last steps to wait for.
 4. UNREAD: by now the host has begun the call, or it will not for some time, and others should.
 5. A heartbeat, or any other word, moves the silence and nothing else.
"""

from __future__ import annotations

from enum import Enum
from math import inf

from stem_iso.isolate.capture import Capture
from stem_iso.isolate.job import Caller, HostedJob
from stem_iso.isolate.lifecycle import Cause
from stem_iso.outcome import StopReason

LATE = 0.05  # seconds that a host may be late with the notice of a limit before the core tells of it
UNREAD = 2.0  # seconds that a host has to begin a call, for which its main thread needs nothing but the interpreter lock
END_GRACE = 2.0  # seconds from the limit, or the stop, that a coroutine has for its last steps


class Alarm(Enum):
    SOFT = "soft"
    STACK = "stack"
    OVER = "over"
    UNREAD = "unread"


class Fate(Enum):
    """What a call becomes whose host has gone under it."""

    STOPPED = "stopped"  # for the reason in `stop`
    TIMED_OUT = "timed out"
    AGAIN = "again"  # it had not begun: another host runs it
    CLOSED = "closed"  # the engine closes
    DISPLACED = "displaced"  # its host was ended for the sake of another call
    CRASHED = "crashed"


class HostedCall:
    """Opaque to the submitter; owned by the engine, under its lock."""

    __slots__ = (
        *("_hard_at", "_over_at", "_silent_at", "_soft_at", "_stack_at", "_unread_at"),
        *("arrival", "caller", "capture", "ending", "host", "job", "limit_at", "next_at", "number", "over", "seated", "sent_at"),
        *("soft_elapsed", "soft_told", "stack", "stop", "thread", "tries"),
    )

    def __init__(self, job: HostedJob, caller: Caller) -> None:
        self.job, self.caller = job, caller
        self.host: int | None = None
        self.arrival = self.number = self.tries = 0
        self.seated = False
        self.stop: StopReason | None = None
        self.soft_told = False  # once per call, also where a second host runs it
        self._reset(0.0)

    def _reset(self, now: float) -> None:
        self.sent_at = now
        self.thread = 0  # where it runs, as the kernel counts threads; 0: nobody has said
        self.capture: Capture | None = None  # made for the first word
        self.stack = ""  # where it was at its limit
        self.ending: Cause | None = None  # what told it to end: LIMIT, SILENCE or STOPPED
        self.over = False
        self.limit_at = 0.0  # when the limit that ends it was reached
        self.soft_elapsed = 0.0  # when the core's own alarm rang; 0 before
        self._soft_at = self._stack_at = self._over_at = self._hard_at = self._silent_at = self._unread_at = self.next_at = inf

    def begin(self, host: int, number: int, now: float) -> None:
        self._reset(now)
        self.host, self.number, self._unread_at = host, number, now + UNREAD
        limits = self.job.limits
        if limits.soft is not None and not self.soft_told:
            self._soft_at = now + limits.soft + LATE
        if self.job.coroutine:
            self._hard_at = inf if limits.hard is None else now + limits.hard
            self._silent_at = inf if limits.heartbeat is None else now + limits.heartbeat
        self._plan()

    def heard(self, now: float) -> None:
        if self._silent_at != inf and self.job.limits.heartbeat is not None:
            self._silent_at = now + self.job.limits.heartbeat
            self._plan()

    def told_to_end(self, cause: Cause, now: float) -> None:
        """By its host, which saw a limit, or by a stop. The first cause stands."""
        if self.ending is None:
            self.ending, self.limit_at = cause, now
            self._stack_at = inf
            self._over_at = now + END_GRACE
            self._next()

    def give_up(self) -> None:
        """No grace for it."""
        self.over, self._over_at = True, inf
        self._next()

    def due(self, now: float) -> list[Alarm]:
        """What rings at `now`, in order, each once."""
        rung: list[Alarm] = []
        if now < self.next_at:
            return rung
        if now >= self._soft_at:
            self._soft_at, self.soft_elapsed = inf, now - self.sent_at
            rung.append(Alarm.SOFT)
        if now >= self._stack_at:
            cause = Cause.LIMIT if self._hard_at <= self._silent_at else Cause.SILENCE
            self.told_to_end(cause, min(self._hard_at, self._silent_at))
            rung.append(Alarm.STACK)
        if now >= self._over_at:
            self.over, self._over_at = True, inf
            rung.append(Alarm.OVER)
        if now >= self._unread_at:
            self._unread_at = inf
            rung.append(Alarm.UNREAD)
        self._next()
        return rung

    def told_soft(self) -> bool:
        """True the first time."""
        first, self.soft_told, self._soft_at = not self.soft_told, True, inf
        self._next()
        return first

    def fate(self, *, started: bool, cause: Cause | None) -> Fate:
        """`cause`: why the core killed the host, None where it did not."""
        if self.ending in (Cause.LIMIT, Cause.SILENCE):
            return Fate.TIMED_OUT
        if self.stop is not None:
            return Fate.STOPPED
        if not started:
            return Fate.AGAIN
        if cause is Cause.CLOSING:
            return Fate.CLOSED
        return Fate.DISPLACED if cause is Cause.DRAINED else Fate.CRASHED

    def _plan(self) -> None:
        if self.ending is None:
            kill_at = min(self._hard_at, self._silent_at)
            self._stack_at = kill_at + LATE
        self._next()

    def _next(self) -> None:
        self.next_at = min(self._soft_at, self._stack_at, self._over_at, self._unread_at)
