"""The supervisor of an engine's shared hosts: says when one is started, what is sent to it, and when it drains and ends.

    roster ──> StartHost      allocator: a seat, in turn ──> Send
    messages, alarms ──> soft limit, stack, over ──> Draining ──> KillHost, when nothing in it is worth waiting for (`host`)
    the exit ──> the fate of each call that was there ──> outcome, or the next host

Rules
 1. A call is reported once: at its reply, or when its host's exit is confirmed and swept. A reply read after the kill wins.
 2. `page.started` is the highest number that the host had whole (`child.shared_host`): what was sent after it runs elsewhere, uncounted,
    and after REASSIGNMENTS such deaths ends as crashed.
 3. When a host dies by itself, all that had started in it has crashed: nobody can say whose fault it was.
 4. A call has its seat from the moment it is sent until it is reported; one that is over holds it as long as its host lives.
 5. Each event returns the actions that it asks for, to be carried out in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from typing import NamedTuple

from stem_iso.isolate import wire
from stem_iso.isolate.engine import endings
from stem_iso.isolate.engine.allocator import Allocator, Order
from stem_iso.isolate.engine.call import REASSIGNMENTS, Call, hosted_frame
from stem_iso.isolate.engine.deadlines import Alarm
from stem_iso.isolate.engine.endings import Exit
from stem_iso.isolate.engine.frames import BegunFrame, IsolateFrame, LimitFrame, LogFrame, PongFrame, PrintFrame, ReplyFrame, UnbegunFrame
from stem_iso.isolate.engine.lifecycle import Cause
from stem_iso.isolate.engine.output import CapturedOutput, Line
from stem_iso.isolate.engine.shared_host.call import Fate, HostCall
from stem_iso.isolate.engine.shared_host.host import SharedHost
from stem_iso.isolate.engine.shared_host.roster import Roster
from stem_iso.isolate.interfaces import Boot, LimitNotice
from stem_iso.outcome import BootFailed, Crashed, Outcome, Stopped, StopReason, TimedOut


@dataclass(frozen=True, slots=True)
class HostBoot:
    """How shared hosts start. `at_start`: one is booted with the engine, and kept; else with the first call."""

    boot: Boot
    at_start: bool = False


class StartHost(NamedTuple):
    number: int


class Send(NamedTuple):
    """These bytes, to this host."""

    host: SharedHost
    data: bytes


class Notify(NamedTuple):
    """Call the caller, outside the lock."""

    callback: Callable[[], None]


class Arm(NamedTuple):
    """There is something to do at this time, monotonic."""

    at: float


class Draining(NamedTuple):
    """The host takes no more."""

    host: SharedHost
    why: str


class KillHost(NamedTuple):
    """Nothing runs in it that is worth waiting for."""

    host: SharedHost


Action = Order[Call, HostCall] | StartHost | Send | Notify | Arm | Draining | KillHost


class HostSupervisor:
    """Used under the engine's lock."""

    def __init__(self, allocator: Allocator[Call, HostCall], host: HostBoot | None) -> None:
        self._allocator, self._boot = allocator, host
        self.roster = Roster(eager=host is not None and host.at_start)
        self._hosts: dict[int, SharedHost] = {}
        self._numbers = 0  # of calls: they only grow, see rule 2
        self._actions: list[Action] = []

    def _taken(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions

    # -- what its owner asks for ---------------------------------------------------------------------------------------------------

    def stop(self, call: HostCall, reason: StopReason) -> list[Action]:
        host = self._hosts.get(call.host or 0)
        if call.host is None:
            if self._allocator.withdraw_hosted(call):
                self._end(call, Stopped(reason, started=False))
        elif host is not None and host.hosted.get(call.number) is call and call.stop is None:
            self._stop(host, call, reason)
        return self._taken()

    def _stop(self, host: SharedHost, call: HostCall, reason: StopReason) -> None:
        if reason is StopReason.SHUTDOWN:
            self.roster.eager = False
        elif not call.job.coroutine:
            return  # left to end
        call.stop, now = reason, monotonic()
        call.end_by(Cause.STOPPED, now)
        if call.job.coroutine:
            self._actions += Send(host, wire.frame(wire.STOP, call.number, reason.value.encode())), Arm(call.next_at)
        else:
            call.give_up()
            self._drain(host, now, "the worker stops")

    def set_log_level(self, level: int) -> None:
        if self._boot is not None:
            self._boot = replace(self._boot, boot=replace(self._boot.boot, log_level=level))

    def close_down(self) -> list[Action]:
        self.roster.closed = True
        for call in self._allocator.withdraw_hosted():
            self._end(call, Stopped(StopReason.SHUTDOWN, started=False))
        return self._taken()

    # -- calls ---------------------------------------------------------------------------------------------------------------------

    def seat(self, call: HostCall) -> list[Action]:
        """Its turn has come: there is a seat, and was an open host."""
        call.seated = True
        host = self._hosts.get(self.roster.open or 0)
        if host is None:  # it drains since
            self._allocator.requeue_hosted(call, call.job.priority, call.arrival)
            self._unseat(call)
        else:
            self._send(host, call)
        return self._taken()

    def _unseat(self, call: HostCall) -> None:
        if call.seated:
            call.seated = False
            self._actions += self._allocator.unseated(monotonic())

    def _send(self, host: SharedHost, call: HostCall) -> None:
        try:
            definition = host.define(call.job.entry)
        except BaseException as error:  # user code, in the core: pickling an entrypoint calls whatever it refers to
            self._unseat(call)
            self._end(call, endings.unsendable(error))
            return
        self._numbers += 1
        call.begin(host.number, self._numbers, monotonic())
        host.hosted[call.number] = call
        host.capture.renew()
        call.caller.sent()
        self._actions += Send(host, hosted_frame(call.number, call.job, call.deadlines.sent_at, definition)), Arm(call.next_at)

    # -- a host's life -------------------------------------------------------------------------------------------------------------

    def poll(self, now: float) -> list[Action]:
        """A host to start, if one is missing."""
        self._start_missing(now)
        return self._taken()

    def _start_missing(self, now: float) -> None:
        number = self.roster.decide(self._allocator.waiting_for_host, now)
        if number is not None:
            self._actions.append(StartHost(number))

    def start(self, number: int, seat: int) -> tuple[SharedHost, Boot]:
        """The host of this number, whose process is not there yet, and how it boots. Raises OSError."""
        assert self._boot is not None  # an engine without one is given no hosted jobs
        boot = self._boot.boot
        host = self._hosts[number] = SharedHost(number, seat, monotonic() + boot.time_limit, boot.largest_frame)
        return host, boot

    def not_started(self, number: int, why: str) -> list[Action]:
        """It could not even be begun."""
        self._failed(number, why)
        return self._taken()

    def ready(self, host: SharedHost) -> list[Action]:
        self.roster.ready(host.number)
        self._allocator.host_open = True
        return [*self._allocator.decide(monotonic())]

    def left(self, host: SharedHost) -> None:
        """It takes no more."""
        self.roster.left(host.number)
        self._allocator.host_open = self.roster.open is not None

    def stuck(self, host: SharedHost) -> list[Action]:
        """It does not die: its seats are free, its calls are not reported."""
        for call in host.hosted.values():
            self._unseat(call)
        return self._taken()

    def _failed(self, number: int, why: str) -> None:
        if self.roster.failed(number, monotonic()):
            for call in self._allocator.withdraw_hosted():
                self._end(call, BootFailed(why))
        self._actions.append(Arm(self.roster.boot_after))

    def _drain(self, host: SharedHost, now: float, why: str) -> None:
        if host.begin_drain(now):
            self.left(host)
            self._actions.append(Draining(host, why))
            begun = host.page.take_back()
            for call in [each for each in host.hosted.values() if each.number > begun]:
                self._again(host, call)
            self._actions.append(Arm(host.alarm()))
            self._start_missing(now)
        self._end_drained(host)

    def _again(self, host: SharedHost, call: HostCall) -> None:
        """It has not begun there, and never will: another host runs it, unless something ended it meanwhile."""
        self._part(host, call)
        if call.ending is None and not self.roster.closed:
            self._allocator.requeue_hosted(call, call.job.priority, call.arrival)
        else:
            self._report(host, call, call.fate(started=False, cause=None), Exit(died_at=monotonic()), Crashed(), started=False)
        self._unseat(call)

    def _end_drained(self, host: SharedHost) -> None:
        if host.done_draining:
            self._actions.append(KillHost(host))

    def exited(self, host: SharedHost, end: Exit, broken: str | None, death: Crashed) -> list[Action]:
        """The exit is confirmed, its descendants are dead, its last frames read. `broken`: why its boot failed, None where it had not;
        `death`: what it was, if nobody of ours killed it."""
        self.left(host)
        del self._hosts[host.number]
        for call in list(host.hosted.values()):
            started = call.number <= host.page.started
            self._finish(host, call)
            self._part(host, call)
            fate = call.fate(started=started, cause=host.life.cause)
            if fate is Fate.AGAIN and call.tries < REASSIGNMENTS and not self.roster.closed:
                call.tries += 1
                self._allocator.requeue_hosted(call, call.job.priority, call.arrival)
            else:
                self._report(host, call, fate, end, death, started)
            self._unseat(call)
        if broken is None and host.page.started == 0 and host.life.cause is None:
            broken = f"it died as soon as it was ready: {end.signal or f'exit code {end.exit_code}'}\n{death.stderr}"
        if broken is not None:
            self._failed(host.number, broken)
        self._start_missing(monotonic())
        return self._taken()

    # -- messages ------------------------------------------------------------------------------------------------------------------

    def on_frame(self, host: SharedHost, number: int, frame: IsolateFrame) -> list[Action]:
        """What a shared host alone says, or says of one of many. Raises Garbage where the call cannot have sent it."""
        call = host.hosted.get(number)
        if isinstance(frame, PongFrame):
            host.pong(frame.number, monotonic())
            return [Arm(host.alarm())]
        assert call is not None  # `frames.read` has seen to it
        if not isinstance(frame, ReplyFrame | UnbegunFrame):
            call.deadlines.beat(monotonic())
        match frame:
            case ReplyFrame(outcome, left):
                self._replied(host, call, outcome, spent=left != 0)
            case UnbegunFrame():
                self._again(host, call)
            case BegunFrame(thread):
                call.thread = thread
            case LogFrame(level, logger, text, details):
                self._output(call, _capture(call).log(level, logger, text, details))
            case PrintFrame(stream, text):
                self._output(call, _capture(call).feed(stream, text))
            case LimitFrame():
                self._limit(call, frame)
        return self._taken()

    def _replied(self, host: SharedHost, call: HostCall, outcome: Outcome, spent: bool) -> None:
        """A complete reply, while its process lives or after. `spent`: a call changed what cannot be put back there."""
        self.roster.proved()
        self._finish(host, call)
        if isinstance(outcome, TimedOut):
            self._hard_limit(call, outcome)
        self._part(host, call)
        self._end(call, outcome)
        self._unseat(call)
        if spent and not host.died_at:
            self._drain(host, monotonic(), "a call changed what cannot be put back")
        self._end_drained(host)

    def _limit(self, call: HostCall, reached: LimitFrame) -> None:
        if reached.level == wire.SOFT_LIMIT:
            self._soft_limit(call, reached.elapsed, reached.stack)
            return
        silent = reached.level == wire.SILENCE
        limit = call.job.limits.heartbeat if silent else call.job.limits.hard
        if limit is None:
            raise wire.Garbage("a limit that the call has not")
        call.stack = reached.stack
        call.end_by(Cause.SILENCE if silent else Cause.LIMIT, monotonic() if silent else call.deadlines.sent_at + limit)
        self._actions.append(Arm(call.next_at))

    # -- alarms --------------------------------------------------------------------------------------------------------------------

    def due(self, host: SharedHost, now: float) -> list[Action]:
        if host.stack_due <= now:
            self._late(host, *host.next_stack(now))
        for call in list(host.hosted.values()):
            if call.host == host.number:  # and has not been taken back for another's sake
                for alarm in call.due(now):
                    self._alarm(host, call, alarm, now)
        if host.draining and (ping := host.ping(now)):
            self._actions.append(Send(host, wire.frame(wire.PING, ping)))
        self._end_drained(host)
        return self._taken()

    def _alarm(self, host: SharedHost, call: HostCall, alarm: Alarm, now: float) -> None:
        match alarm:
            case Alarm.SOFT | Alarm.HARD | Alarm.SILENCE:
                host.request_stack_of(call, now)
            case Alarm.OVER:
                self._drain(host, now, "a call in it does not end")
            case Alarm.UNREAD if call.number > host.page.started:
                self._drain(host, now, "it begins no call")

    # -- reports -------------------------------------------------------------------------------------------------------------------

    def _finish(self, host: SharedHost, call: HostCall) -> None:
        """It has ended: a soft limit that waits for its stack, what it printed without a newline, and how much was too much."""
        if call in host.stacks:
            self._late(host, call, host.leave_stacks(call, monotonic()))
            self._actions.append(Arm(host.stack_due))
        if call.capture is not None:
            self._output(call, call.capture.finish())

    def _late(self, host: SharedHost, call: HostCall, stack: str) -> None:
        """What the host has not reported: by now both limits, perhaps; and what somebody asked for."""
        for request in host.came(call, stack):
            self._notify(partial(request.answer, request.text.rstrip()))
        if call.soft_elapsed:
            self._soft_limit(call, call.soft_elapsed, stack)
        if call.ending is not None:
            call.stack = call.stack or stack

    def _report(self, host: SharedHost, call: HostCall, fate: Fate, end: Exit, death: Crashed, started: bool) -> None:
        match fate:
            case Fate.STOPPED:
                assert call.stop is not None
                outcome: Outcome = Stopped(call.stop, started)
            case Fate.TIMED_OUT:
                outcome = call.deadlines.time_out(call.stack, end.signalled_at, end.died_at, end.killed)
                self._hard_limit(call, outcome)
            case Fate.CLOSED | Fate.DISPLACED:
                outcome = Stopped(StopReason.SHUTDOWN if fate is Fate.CLOSED else StopReason.DISPLACED, started)
            case Fate.AGAIN if self.roster.closed:
                outcome = Stopped(StopReason.SHUTDOWN, started=False)
            case Fate.AGAIN | Fate.CRASHED:
                stderr = "\n".join((*(call.capture.tail if call.capture else ()), *host.capture.tail))
                if host.life.cause is not None:
                    outcome = endings.of_cause(host.life.cause, None, started, end, stderr)
                else:
                    outcome = replace(death, stderr=stderr)
        self._end(call, outcome)

    def _soft_limit(self, call: HostCall, elapsed: float, stack: str) -> None:
        notice = call.soft_notice(elapsed, stack)
        if notice is not None:
            self._notify(partial(call.caller.limit_reached, notice))

    def _hard_limit(self, call: HostCall, outcome: TimedOut) -> None:
        self._notify(partial(call.caller.limit_reached, LimitNotice.of(outcome)))

    def _output(self, call: HostCall, lines: Iterable[Line]) -> None:
        for line in lines:
            self._notify(partial(call.caller.output, *line))

    def _end(self, call: HostCall, outcome: Outcome) -> None:
        self._notify(partial(call.caller.ended, outcome))

    def _notify(self, callback: Callable[[], None]) -> None:
        self._actions.append(Notify(callback))

    def _part(self, host: SharedHost, call: HostCall) -> None:
        del host.hosted[call.number]
        call.host = None


def _capture(call: HostCall) -> CapturedOutput:
    if call.capture is None:
        call.capture = CapturedOutput()
    return call.capture
