"""One call of an inline host: its deadlines, and what its host's death means for it. Pure: `now` comes in.

   sent ──── soft ── +50 ms ──── hard, or silence ── +50 ms ──────── +2 s          sent ── +2 s
                     Alarm.SOFT          Alarm.HARD, SILENCE         Alarm.OVER              Alarm.UNREAD

Rules
 1. The host keeps the limits, and reports them; the core's alarms ring only where it could not, because C code keeps its interpreter lock.
    SOFT asks the call's thread for its stack by a signal, and reports the limit; HARD and SILENCE do so for the limit that ends the call.
 2. OVER: the call was told to end, by a limit or a stop, and has not within its grace. It ends with its host (`supervisor`).
 3. A thread cannot be told to end. Only a shutdown ends it, with its host, and then at once: it has no last steps to wait for.
 4. UNREAD: by now the host has begun the call, or it will not for some time, and others should.
 5. A heartbeat, or any other frame, moves the silence and nothing else.
"""

from __future__ import annotations

from enum import Enum
from math import inf

from stem_iso.isolate.engine.deadlines import Alarm, Deadlines
from stem_iso.isolate.engine.lifecycle import Cause
from stem_iso.isolate.engine.output import CapturedOutput
from stem_iso.isolate.interfaces import Caller, HostedJob, LimitNotice
from stem_iso.outcome import StopReason

LATE = 0.05  # seconds that a host may be late with the notice of a limit before the core reports it
UNREAD = 2.0  # seconds that a host has to begin a call, for which its main thread needs nothing but the interpreter lock
END_GRACE = 2.0  # seconds from the limit, or the stop, that a coroutine has for its last steps


class Fate(Enum):
    """What a call becomes whose host has gone under it."""

    STOPPED = "stopped"  # for the reason in `stop`
    TIMED_OUT = "timed out"
    AGAIN = "again"  # it had not begun: another host runs it
    CLOSED = "closed"  # the engine closes
    DISPLACED = "displaced"  # its host was ended for the sake of another call
    CRASHED = "crashed"


class HostCall:
    """Opaque to the submitter; owned by the engine, under its lock."""

    __slots__ = (
        *("_over_at", "_unread_at", "arrival", "caller", "capture", "deadlines", "ending", "host", "job", "number", "over", "seated"),
        *("soft_elapsed", "soft_reported", "stack", "stop", "thread", "tries"),
    )

    def __init__(self, job: HostedJob, caller: Caller) -> None:
        self.job, self.caller = job, caller
        self.host: int | None = None
        self.arrival = self.number = self.tries = 0
        self.seated = False
        self.stop: StopReason | None = None
        self.soft_reported = False  # once per call, also where a second host runs it

    def begin(self, host: int, number: int, now: float) -> None:
        """It is sent to this host, under this number: its clock runs, anew where another host had it before."""
        self.host, self.number = host, number
        self.deadlines = Deadlines(self.job.limits, now, early_stack=False, ends=self.job.coroutine, late=LATE)
        if self.soft_reported:
            self.deadlines.drop_soft()
        self.thread = 0  # where it runs, if a frame has said so (`SharedHost.thread_of`)
        self.capture: CapturedOutput | None = None  # made for the first line
        self.stack = ""  # where it was at its limit
        self.ending: Cause | None = None  # what told it to end: LIMIT, SILENCE or STOPPED
        self.over = False
        self.soft_elapsed = 0.0  # when the core's own alarm rang; 0 before
        self._over_at, self._unread_at = inf, now + UNREAD

    @property
    def next_at(self) -> float:
        return min(self.deadlines.next_at, self._over_at, self._unread_at)

    def end_by(self, cause: Cause, at: float) -> None:
        """By a limit, which its host saw or we did, or by a stop. The first cause stands."""
        if self.ending is not None:
            return
        self.ending, self._over_at = cause, at + END_GRACE
        if cause is Cause.STOPPED:
            self.deadlines.drop_kill()
        else:
            self.deadlines.reach(at, silent=cause is Cause.SILENCE)

    def give_up(self) -> None:
        """No grace for it."""
        self.over, self._over_at = True, inf

    def due(self, now: float) -> list[Alarm]:
        """What rings at `now`, in order, each once."""
        rung = self.deadlines.due(now)
        if Alarm.SOFT in rung:
            self.soft_elapsed = now - self.deadlines.sent_at
        if self.deadlines.over:
            self.end_by(Cause.SILENCE if self.deadlines.silent else Cause.LIMIT, self.deadlines.kill_at)
        if now >= self._over_at:
            self.over, self._over_at = True, inf
            rung.append(Alarm.OVER)
        if now >= self._unread_at:
            self._unread_at = inf
            rung.append(Alarm.UNREAD)
        return rung

    def soft_notice(self, elapsed: float, stack: str) -> LimitNotice | None:
        """The report of the soft limit; None where it has been made."""
        first, self.soft_reported = not self.soft_reported, True
        self.deadlines.drop_soft()
        return LimitNotice(self.job.limits.soft or 0.0, elapsed, stack, level="soft") if first else None

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
