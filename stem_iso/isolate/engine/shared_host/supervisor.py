"""The supervisor of an engine's inline hosts: starts them, sends them calls, drains and ends them.

    roster ──> launch      allocator: a seat, in turn ──> send
    alarms ──> soft limit, stack, over ──> drain ──> kill, when nothing in it is worth waiting for (`host`)
    the exit ──> the fate of each call that was there ──> outcome, or the next host

Rules
 1. A call is reported once: at its reply, or when its host's exit is confirmed and swept (I4). A reply read after the kill wins.
 2. `page.started` is the highest number that the host had whole (`child.shared_host`): what was sent after it runs elsewhere, uncounted,
    and after REASSIGNMENTS such deaths ends as crashed.
 3. When a host dies by itself, all that had started in it has crashed: nobody can say whose fault it was.
 4. A call has its seat from the moment it is sent until it is reported; one that is over holds it as long as its host lives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from stem_iso.isolate import wire
from stem_iso.isolate.engine import endings
from stem_iso.isolate.engine.call import REASSIGNMENTS, hosted_frame
from stem_iso.isolate.engine.deadlines import Alarm
from stem_iso.isolate.engine.endings import Exit
from stem_iso.isolate.engine.lifecycle import Cause
from stem_iso.isolate.engine.shared_host.call import Fate, HostCall
from stem_iso.isolate.engine.shared_host.frames import HostFrameReader
from stem_iso.isolate.engine.shared_host.host import SharedHost
from stem_iso.isolate.engine.shared_host.roster import Roster
from stem_iso.isolate.interfaces import Boot, LimitNotice
from stem_iso.outcome import BootFailed, Crashed, Outcome, Stopped, StopReason, TimedOut

if TYPE_CHECKING:
    from stem_iso.isolate.engine.isolates import Isolates


@dataclass(frozen=True, slots=True)
class HostBoot:
    """How inline hosts start. `at_start`: one is booted with the engine, and kept; else with the first call."""

    boot: Boot
    at_start: bool = False


class HostSupervisor:
    """Used under the engine's lock."""

    def __init__(self, isolates: Isolates, host: HostBoot | None, later: Callable[[Callable[[], None]], None]) -> None:
        self._isolates, self._boot = isolates, host
        self._fleet = isolates.fleet
        self.roster = Roster(eager=host is not None and host.at_start)
        self.hearing = HostFrameReader(isolates, self, later)
        self._numbers = 0  # of calls: they only grow, see rule 2

    # -- wishes --------------------------------------------------------------------------------------------------------------------

    def stop(self, call: HostCall, reason: StopReason) -> None:
        if call.host is None:
            if self._fleet.withdraw_hosted(call):
                self.end(call, Stopped(reason, started=False))
            return
        host = self._host(call.host)
        if host is None or host.hosted.get(call.number) is not call or call.stop is not None:
            return
        if reason is StopReason.SHUTDOWN:
            self.roster.eager = False
        elif not call.job.coroutine:
            return  # left to end
        call.stop, now = reason, monotonic()
        call.told_to_end(Cause.STOPPED, now)
        if call.job.coroutine:
            self._isolates.push(host, wire.frame(wire.STOP, call.number, reason.value.encode()))
            self._isolates.clocks.arm(call.next_at)
        else:
            call.give_up()
            self._drain(host, now, "the worker stops")

    def close_down(self) -> None:
        self.roster.closed = True
        for call in self._fleet.withdraw_hosted():
            self.end(call, Stopped(StopReason.SHUTDOWN, started=False))

    # -- calls ---------------------------------------------------------------------------------------------------------------------

    def seat(self, call: HostCall) -> None:
        """Its turn has come: there is a seat, and an open host."""
        host = self._host(self.roster.open)
        assert host is not None
        call.seated = True
        self._send(host, call)

    def _unseat(self, call: HostCall) -> None:
        if call.seated:
            call.seated = False
            self._isolates.obey(self._fleet.unseated(monotonic()))

    def _send(self, host: SharedHost, call: HostCall) -> None:
        entry, definition = call.job.entry, b""
        if entry.number not in host.known:
            try:
                definition = entry.definition(host.ready)
            except BaseException as error:  # user code, in the core: pickling an entrypoint calls whatever it refers to
                self._unseat(call)
                self.end(call, endings.unsendable(error))
                return
            host.known.add(entry.number)
        self._numbers += 1
        call.begin(host.number, self._numbers, monotonic())
        host.hosted[call.number] = call
        host.capture.renew()
        call.caller.sent()
        self._isolates.push(host, hosted_frame(call.number, call.job, call.deadlines.sent_at, definition))
        self._isolates.clocks.arm(call.next_at)

    def _host(self, number: int | None) -> SharedHost | None:
        found = None if number is None else self._isolates.by_number.get(number)
        return found if isinstance(found, SharedHost) else None

    # -- a host's life -------------------------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Start a host, if one is missing."""
        if (number := self.roster.decide(self._fleet.waiting_for_host, now)) is None:
            return
        assert self._boot is not None  # an engine without one is given no hosted jobs
        boot = self._boot.boot
        try:
            host = SharedHost(number, self._isolates.keeping.free_seat, now + boot.time_limit, boot.largest_frame)
        except OSError as error:  # no descriptor, no memory
            if self.roster.boot_failures == 0:
                self._isolates.no_process(f"{type(error).__name__}: {error}")
            self._failed(number, f"{type(error).__name__}: {error}")
        else:
            self._isolates.keeping.launch(host, boot)

    def ready(self, host: SharedHost) -> None:
        self.roster.ready(host.number)
        self._fleet.host_open = True
        self._isolates.obey(self._fleet.decide(monotonic()))

    def left(self, host: SharedHost) -> None:
        """It takes no more."""
        self.roster.left(host.number)
        self._fleet.host_open = self.roster.open is not None

    def stuck(self, host: SharedHost) -> None:
        """It does not die: its seats are free, its calls are not reported."""
        for call in host.hosted.values():
            self._unseat(call)

    def _failed(self, number: int, why: str) -> None:
        now = monotonic()
        if self.roster.failed(number, now):
            for call in self._fleet.withdraw_hosted():
                self.end(call, BootFailed(why))
        self._isolates.clocks.arm(self.roster.boot_after)

    def replied(self, host: SharedHost, call: HostCall, outcome: Outcome, spent: bool) -> None:
        """A complete reply, while its process lives or after. `spent`: a call changed what cannot be put back there."""
        self.roster.proved()
        self.hearing.finish(host, call)
        if isinstance(outcome, TimedOut):
            self._tell_hard(call, outcome)
        self._part(host, call)
        self.end(call, outcome)
        self._unseat(call)
        if spent and not host.died_at:
            self._drain(host, monotonic(), "a call changed what cannot be put back")
        self._end_drained(host)

    def ring(self, host: SharedHost, now: float) -> None:
        if host.stack_due <= now:
            self.hearing.stack_came(host)
        for call in list(host.hosted.values()):
            if call.host == host.number:  # and has not been taken back for another's sake
                for alarm in call.due(now):
                    self._alarm(host, call, alarm, now)
        if host.draining and (number := host.ping(now)):
            self._isolates.push(host, wire.frame(wire.PING, number))
        self._end_drained(host)

    def _alarm(self, host: SharedHost, call: HostCall, alarm: Alarm, now: float) -> None:
        match alarm:
            case Alarm.SOFT | Alarm.HARD | Alarm.SILENCE:
                self.hearing.ask_stack(host, call, now)
            case Alarm.OVER:
                self._drain(host, now, "a call in it does not end")
            case Alarm.UNREAD if call.number > host.page.started:
                self._drain(host, now, "it begins no call")

    def pong(self, host: SharedHost, number: int) -> None:
        host.pong(number, monotonic())
        self._isolates.clocks.arm(host.alarm())

    def _drain(self, host: SharedHost, now: float, why: str) -> None:
        if host.begin_drain(now):
            self.left(host)
            self._isolates.notice(host, "draining", why)
            begun = host.page.take_back()
            for call in [each for each in host.hosted.values() if each.number > begun]:
                self.again(host, call)
            self._isolates.clocks.arm(host.alarm())
            self.look(now)
        self._end_drained(host)

    def again(self, host: SharedHost, call: HostCall) -> None:
        """It has not begun there, and never will: another host runs it, unless it was told to end meanwhile."""
        self._part(host, call)
        if call.ending is None and not self.roster.closed:
            self._fleet.requeue_hosted(call, call.job.priority, call.arrival)
        else:
            self._tell(host, call, call.fate(started=False, cause=None), Exit(died_at=monotonic()), Crashed(), started=False)
        self._unseat(call)

    def _end_drained(self, host: SharedHost) -> None:
        if host.done_draining:
            self._isolates.condemn(host, Cause.DRAINED)

    def gone(self, host: SharedHost, end: Exit, broken: str | None, death: Crashed) -> None:
        """The exit is confirmed, its descendants are dead, its last frames read. `broken`: why its boot failed, None where it had not;
        `death`: what it was, if nobody of ours killed it."""
        self.left(host)
        for call in list(host.hosted.values()):
            started = call.number <= host.page.started
            self.hearing.finish(host, call)
            self._part(host, call)
            fate = call.fate(started=started, cause=host.life.cause)
            if fate is Fate.AGAIN and call.tries < REASSIGNMENTS and not self.roster.closed:
                call.tries += 1
                self._fleet.requeue_hosted(call, call.job.priority, call.arrival)
            else:
                self._tell(host, call, fate, end, death, started)
            self._unseat(call)
        if broken is None and host.page.started == 0 and host.life.cause is None:
            broken = f"it died as soon as it was ready: {end.signal or f'exit code {end.exit_code}'}\n{death.stderr}"
        if broken is not None:
            self._failed(host.number, broken)
        self.look(monotonic())

    # -- endings -------------------------------------------------------------------------------------------------------------------

    def _tell(self, host: SharedHost, call: HostCall, fate: Fate, end: Exit, death: Crashed, started: bool) -> None:
        match fate:
            case Fate.STOPPED:
                assert call.stop is not None
                outcome: Outcome = Stopped(call.stop, started)
            case Fate.TIMED_OUT:
                outcome = call.deadlines.time_out(call.stack, end.signalled_at, end.died_at, end.killed)
                self._tell_hard(call, outcome)
            case Fate.CLOSED | Fate.DISPLACED:
                outcome = Stopped(StopReason.SHUTDOWN if fate is Fate.CLOSED else StopReason.DISPLACED, started)
            case Fate.AGAIN if self.roster.closed:
                outcome = Stopped(StopReason.SHUTDOWN, started=False)
            case Fate.AGAIN | Fate.CRASHED:
                said = "\n".join((*(call.capture.tail if call.capture else ()), *host.capture.tail))
                if host.life.cause is not None:
                    outcome = endings.of_cause(host.life.cause, None, started, end, said)
                else:
                    outcome = replace(death, stderr=said)
        self.end(call, outcome)

    def _tell_hard(self, call: HostCall, outcome: TimedOut) -> None:
        self._isolates.callbacks.append(partial(call.caller.limit_reached, LimitNotice.of(outcome)))

    def end(self, call: HostCall, outcome: Outcome) -> None:
        self._isolates.callbacks.append(partial(call.caller.ended, outcome))

    def _part(self, host: SharedHost, call: HostCall) -> None:
        del host.hosted[call.number]
        call.host = None
