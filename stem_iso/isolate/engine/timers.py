"""The timers of all isolates: limits, stacks, kills that go on, boots that hang, a keeper that does not report.

One timer of the kernel serves all. It is set anew only when the earliest alarm gets earlier; when it fires, every isolate's next alarm is
looked at.
"""

from __future__ import annotations

import signal
from math import inf
from typing import TYPE_CHECKING

from stem_iso.isolate.engine.deadlines import Alarm
from stem_iso.isolate.engine.isolate import STUCK_AFTER, Isolate
from stem_iso.isolate.engine.keeper_pressure import KILL, WAKE, Press, press
from stem_iso.isolate.engine.lifecycle import Cause, State
from stem_iso.isolate.engine.shared_host.host import SharedHost
from stem_iso.isolate.interfaces import IsolateNotice
from stem_iso.isolate.keeper import process_tree
from stem_iso.isolate.linux import Timer

if TYPE_CHECKING:
    from stem_iso.isolate.engine.isolates import Isolates

LAST_LOOK = 0.020  # seconds past its limit that a call has to write its stack
STACK_QUIET = 0.002  # a dump that looks whole is taken for whole when nothing followed for so long
STACK_WAIT = 0.25  # how long a soft event waits for its stack: a handler that blocks the signal sends none


class Timers:
    """Used under the engine's lock."""

    def __init__(self, isolates: Isolates, timer: Timer) -> None:
        self._isolates, self._timer = isolates, timer
        self._armed = inf

    def tick(self, now: float) -> None:
        """Whatever is due; then the timer is set for the next."""
        self._armed = inf
        for isolate in list(self._isolates.by_number.values()):
            if isolate.alarm() <= now:
                self._ring(isolate, now)
        if self._next_boot() <= now:
            self._isolates.wake_up(now)
        earliest = min((isolate.alarm() for isolate in self._isolates.by_number.values()), default=inf)
        next_boot = self._next_boot()
        self.arm(min(earliest, next_boot) if next_boot > now else earliest)

    def _next_boot(self) -> float:
        """The earliest boot that was put off."""
        put_off = (each.boot_after for each in (self._isolates.fleet, self._isolates.hosting.roster) if each.boot_failures)
        return min(put_off, default=inf)

    def arm(self, at: float) -> None:
        if at < self._armed:
            self._armed = at
            self._timer.arm(at)

    def _ring(self, isolate: Isolate, now: float) -> None:
        if isolate.deadlines is not None and isolate.life.state is State.BUSY:
            for alarm in isolate.deadlines.due(now):
                self._alarm(isolate, alarm, now)
        isolate.nudge(now)
        if isinstance(isolate, SharedHost):
            self._isolates.hosting.ring(isolate, now)
        elif isolate.stack_due <= now:
            isolate.stack_due = inf
            self._isolates.hearing.soft_event(isolate)
        if isolate.leave_by <= now:
            self._isolates.begin_kill(isolate)
        if isolate.kill_at <= now:
            isolate.advance_kill(now)
        if isolate.boot_deadline <= now:
            isolate.boot_deadline = inf
            self._end(isolate, Cause.BOOT_LIMIT, now)
        if isolate.last_look is not None and isolate.last_look[1] <= now:
            (cause, _), isolate.last_look = isolate.last_look, None
            self._isolates.condemn(isolate, cause)
        if isolate.died_at:
            self._press_keeper(isolate, now)
        elif isolate.signalled_at and now >= isolate.signalled_at + STUCK_AFTER and not isolate.set_aside:
            self._isolates.emit(IsolateNotice("stuck", isolate.pid, isolate.why_alive(), title=process_tree.title(isolate.pid)))
            self._isolates.set_aside(isolate)

    def _alarm(self, isolate: Isolate, alarm: Alarm, now: float) -> None:
        assert isolate.call is not None and isolate.deadlines is not None
        if alarm is Alarm.SOFT:
            limits = isolate.call.job.limits
            isolate.forget_stack()
            if limits.raise_soft:
                isolate.raise_soft(now)
            else:
                isolate.ask_stack()
            isolate.soft_notice = (limits.soft or 0.0, now - isolate.deadlines.sent_at)
            isolate.stack_due = now + STACK_WAIT
        elif alarm is Alarm.STACK:
            self._isolates.hearing.soft_event(isolate)
            isolate.ask_stack()
        elif alarm is Alarm.EARLY_STACK:
            if isolate.soft_notice is None:  # else one is on its way
                isolate.ask_stack()
        else:
            self._end(isolate, Cause.SILENCE if alarm is Alarm.SILENCE else Cause.LIMIT, now)

    def _end(self, isolate: Isolate, cause: Cause, now: float) -> None:
        """Kill it. Where no stack has come though it could write one, it is asked again, and killed when it has written, at the latest
        LAST_LOOK later. A handler cannot prolong that, and one that blocks the signal does not get it."""
        if isolate.read_stack() or not isolate.may_dump():
            self._isolates.condemn(isolate, cause)
            return
        isolate.ask_stack()
        isolate.last_look = (cause, now + LAST_LOOK)
        if isolate.call is not None:
            self._isolates.link.table.set_deadline(isolate.seat, now + LAST_LOOK)
        self.arm(now + LAST_LOOK)

    def stack_came(self, isolate: Isolate, now: float) -> None:
        """A dump that looks whole, for which somebody waits: it is taken when nothing follows it for a moment."""
        isolate.stack_due = now + STACK_QUIET
        if isolate.last_look is not None:
            cause, until = isolate.last_look
            isolate.last_look = cause, min(until, now + STACK_QUIET)
        self.arm(isolate.stack_due)

    def _press_keeper(self, isolate: Isolate, now: float) -> None:
        if now < isolate.press:
            return
        link = self._isolates.link
        turns = link.table.turns
        at_work = link.waiting() or turns != isolate.turns
        match press(at_work=at_work, woken=isolate.pressed, state=process_tree.state(link.pid), since=now - isolate.died_at):
            case Press.WAIT:
                isolate.turns, isolate.pressed, isolate.press = turns, False, now + WAKE
            case Press.WAKE:
                isolate.pressed, isolate.press = True, now + KILL
                process_tree.send(link.pidfd, signal.SIGCONT)
            case Press.PATIENCE:
                isolate.press = now + WAKE
            case Press.KILL:
                isolate.press = inf
                process_tree.send(link.pidfd, signal.SIGKILL)
