"""The timers of all isolates: limits, stacks, kills that go on, boots that hang, a keeper that does not report.

    Timers: one timer of the kernel for all, set anew only when the earliest alarm gets earlier
    fired ──> every isolate whose alarm has come ──> due ──> what the engine has to do about it

`due` asks an isolate for its stack, and lets a kill that has begun go on; whatever concerns more than the isolate it returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from stem_iso.isolate.engine.deadlines import Alarm
from stem_iso.isolate.engine.isolate import STUCK_AFTER, Isolate
from stem_iso.isolate.engine.lifecycle import Cause, State
from stem_iso.isolate.linux import Timer

LAST_LOOK = 0.020  # seconds past its limit that a call has to write its stack
STACK_QUIET = 0.002  # a dump that looks whole is taken for whole when nothing followed for so long
STACK_WAIT = 0.25  # how long the report of a limit waits for its stack: a handler, or a thread, that blocks the signal sends none


class Timers:
    """The timer of one engine. Used under its lock."""

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._armed = inf

    def arm(self, at: float) -> None:
        """Fire at this time, monotonic, unless it fires before."""
        if at < self._armed:
            self._armed = at
            self._timer.arm(at)

    def fired(self) -> None:
        """From now on it is armed for nothing."""
        self._armed = inf


@dataclass(frozen=True, slots=True)
class SoftLimitDue:
    """The soft limit is to be reported, with the stack as far as it has come."""


@dataclass(frozen=True, slots=True)
class StackDue:
    """Somebody asked for the stack: it is there, or will not come."""


@dataclass(frozen=True, slots=True)
class KillDue:
    cause: Cause


@dataclass(frozen=True, slots=True)
class KillPutOff:
    """Until then at most, for a stack."""

    until: float


@dataclass(frozen=True, slots=True)
class LeaveOver:
    """It was to leave by itself, and has not."""


@dataclass(frozen=True, slots=True)
class StuckDue:
    """It was killed, and does not die."""


Due = SoftLimitDue | StackDue | KillDue | KillPutOff | LeaveOver | StuckDue


def due(isolate: Isolate, now: float) -> Iterator[Due]:
    """What is due for this isolate, in order. Lazy: what is done about one says whether the next is due."""
    if isolate.deadlines is not None and isolate.life.state is State.BUSY:
        for alarm in isolate.deadlines.due(now):
            yield from _of_alarm(isolate, alarm, now)
    isolate.nudge(now)
    isolate.force_stack(now)
    if isolate.stack_due <= now:
        isolate.stack_due = inf
        yield SoftLimitDue()
    if isolate.asked_until <= now:
        yield StackDue()
    if isolate.leave_by <= now:
        yield LeaveOver()
    if isolate.kill_at <= now:
        isolate.advance_kill(now)
    if isolate.boot_deadline <= now:
        isolate.boot_deadline = inf
        yield _kill(isolate, Cause.BOOT_LIMIT, now)
    if isolate.last_look is not None and isolate.last_look[1] <= now:
        (cause, _), isolate.last_look = isolate.last_look, None
        yield KillDue(cause)
    if isolate.died_at:
        isolate.press_keeper(now)
    elif isolate.signalled_at and now >= isolate.signalled_at + STUCK_AFTER and not isolate.set_aside:
        yield StuckDue()


def _of_alarm(isolate: Isolate, alarm: Alarm, now: float) -> Iterator[Due]:
    assert isolate.call is not None and isolate.deadlines is not None
    if alarm is Alarm.SOFT:
        limits = isolate.call.job.limits
        isolate.forget_stack()
        if limits.raise_soft:
            isolate.raise_soft(now)
        else:
            isolate.request_stack(now)
        isolate.soft_limit = (limits.soft or 0.0, now - isolate.deadlines.sent_at)
        isolate.stack_due = now + STACK_WAIT
    elif alarm is Alarm.STACK:
        yield SoftLimitDue()
        isolate.request_stack(now)
    elif alarm is Alarm.EARLY_STACK:
        if isolate.soft_limit is None:  # else one is on its way
            isolate.request_stack(now)
    else:
        yield _kill(isolate, Cause.SILENCE if alarm is Alarm.SILENCE else Cause.LIMIT, now)


def _kill(isolate: Isolate, cause: Cause, now: float) -> Due:
    """Where no stack has come though it could write one, it is asked again, and killed when it has written, at the latest LAST_LOOK later.
    A handler cannot prolong that, and one that blocks the signal does not get it."""
    if isolate.read_stack() or not isolate.may_dump():
        return KillDue(cause)
    isolate.request_stack(now)
    isolate.last_look = (cause, now + LAST_LOOK)
    return KillPutOff(now + LAST_LOOK)


def stack_came(isolate: Isolate, now: float) -> float:
    """A dump that looks whole, for which somebody waits, is taken when nothing follows it for a moment: then."""
    isolate.stack_due = now + STACK_QUIET
    isolate.asked_until = min(isolate.asked_until, isolate.stack_due)
    if isolate.last_look is not None:
        cause, until = isolate.last_look
        isolate.last_look = cause, min(until, now + STACK_QUIET)
    return isolate.stack_due
