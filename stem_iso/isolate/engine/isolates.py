"""The isolates of one engine: an event goes to what decides about it, and what that returns is done here.

    submit, stop, resize ──> allocator ──────────────┐
    frames ──> `frames.read` ──> lifecycle ──────────┤
    keeper's reports ──> lifecycle, `endings` ───────┼──> orders, messages, endings ──> pipes · shared rows · timer · kills · callbacks
    timer ──> `timers.due` ──────────────────────────┤
    all of these of shared hosts ──> supervisor ─────┘

Rules
 1. Long, and one idea: one place acts. What decides imports nothing of it and calls nothing in it.
 2. Everything here runs under the engine's lock. Callbacks of callers wait in `callbacks` until the engine has left the lock; `Caller.sent`
    alone is called at once.
 3. Before a call is sent its shared row is written, in the order that `shared_row` asks for: a verdict that stands means that nothing is
    sent.
 4. At an exit what is left in the pipes is read first: a complete reply counts, whatever killed the isolate.
"""

from __future__ import annotations

import logging
import select
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import chain
from math import inf
from time import monotonic

import msgspec

from stem_iso.isolate import log_record, shared_row, wire
from stem_iso.isolate.child.leftovers import PROCESSES, THREADS
from stem_iso.isolate.engine import endings, frames, timers
from stem_iso.isolate.engine.allocator import Allocator, Assign, GiveUp, Retire, SharedSlot, Spawn
from stem_iso.isolate.engine.call import REASSIGNMENTS, Call, call_frame
from stem_iso.isolate.engine.cpus import Cores
from stem_iso.isolate.engine.deadlines import Deadlines
from stem_iso.isolate.engine.endings import UNKNOWN_EXIT, Exit
from stem_iso.isolate.engine.isolate import FRAMES, STUCK_AFTER, Isolate
from stem_iso.isolate.engine.isolate_view import IsolateView, is_seen, view_of
from stem_iso.isolate.engine.keeper_client import Exited, KeeperClient, KeeperLost, NotStarted, Started, Stuck
from stem_iso.isolate.engine.lifecycle import RETIRING, Cause, Died, Ending, NeverStarted, State
from stem_iso.isolate.engine.memory import MemoryReader, MemoryWatcher, OomKills
from stem_iso.isolate.engine.output import STDERR, STDOUT, Line
from stem_iso.isolate.engine.shared_host.call import HostCall
from stem_iso.isolate.engine.shared_host.host import SharedHost
from stem_iso.isolate.engine.shared_host.supervisor import (
    Action,
    Arm,
    Draining,
    HostBoot,
    HostSupervisor,
    KillHost,
    Notify,
    Send,
    StartHost,
)
from stem_iso.isolate.interfaces import Answer, Boot, IsolateNotice, LimitNotice
from stem_iso.isolate.keeper import process_tree
from stem_iso.isolate.linux import Timer
from stem_iso.outcome import BootFailed, Crashed, Failed, Outcome, Stopped, StopReason, TimedOut

log = logging.getLogger("stem_iso.isolate")

# What comes of an isolate that cannot be asked for: no descriptor, no memory, a stopped keeper whose queue is full; a sys.argv that is no
# list of texts.
NO_START = (OSError, MemoryError, TypeError, ValueError, AttributeError, RecursionError)


class Isolates:
    """Owned by the engine: one object, split from it so that each can be read."""

    def __init__(
        self,
        boot: Boot,
        size: int,
        spares: int,
        max_calls: int | None,
        max_memory: int | None,
        host: HostBoot | None,
        on_isolate: Callable[[IsolateNotice], None],
        later: Callable[[Callable[[], None]], None],
    ) -> None:
        self._boot, self._later = boot, later
        self._max_calls, self._max_memory, self._on_isolate = max_calls, max_memory, on_isolate
        self.allocator: Allocator[Call, HostCall] = Allocator(size, spares)
        self.hosts = HostSupervisor(self.allocator, host)
        self.callbacks: list[Callable[[], None]] = []
        self._actions: deque[Action] = deque()  # those that are being carried out
        self._executing = False
        self._numbers = 0  # of calls: never used twice, so that a row or a frame names one call for ever
        self.cores = Cores()
        self._oom_kills = OomKills()
        self._boot_failure = ""  # the newest
        self.by_number: dict[int, Isolate] = {}
        self._by_fd: dict[int, Isolate] = {}  # by call pipe, and by pidfd
        self._streams: dict[int, Isolate] = {}  # by what it prints to
        self.behind: set[Isolate] = set()  # those that have a backlog
        self._memory = MemoryWatcher(lambda *found: later(lambda: self._over_memory(*found)))

    def open(self, keeper: KeeperClient, epoll: select.epoll, timer: Timer) -> None:
        self.keeper, self._epoll, self._timers = keeper, epoll, timers.Timers(timer)

    def close(self) -> None:
        self._memory.close()
        self.cores.close()
        self.keeper.close()

    @property
    def empty(self) -> bool:
        """Nothing is left to wait for: what will not die has been set aside."""
        return all(isolate.set_aside for isolate in self.by_number.values())

    # -- what the owner asks for ---------------------------------------------------------------------------------------------------

    def submit(self, call: Call | HostCall) -> None:
        now, priority = monotonic(), call.job.priority
        if isinstance(call, HostCall):
            call.arrival, orders = self.allocator.submit_hosted(call, priority, now)
            self._execute(self.hosts.poll(now))
        else:
            call.arrival, orders = self.allocator.submit(call, priority, now)
        self._execute(orders)

    def withdraw(self, call: Call | HostCall) -> bool:
        if isinstance(call, HostCall):
            return call.host is None and bool(self.allocator.withdraw_hosted(call))
        return call.isolate is None and self.allocator.withdraw(call.arrival)

    def stop(self, call: Call | HostCall, reason: StopReason) -> None:
        """What waits ends, and does not begin."""
        if isinstance(call, HostCall):
            self._execute(self.hosts.stop(call, reason))
        elif call.isolate is None:
            if self.allocator.withdraw(call.arrival):
                self._end_unbegun(call)
        elif (isolate := self.by_number.get(call.isolate)) is not None and isolate.call is call:
            self._kill(isolate, Cause.STOPPED)

    def resize(self, size: int, spares: int) -> None:
        self._execute(self.allocator.resize(size, spares, monotonic()))

    def views(self) -> list[IsolateView]:
        """Those that live, and those that die under a call."""
        return [view_of(isolate, self._memory.used(isolate.number)) for isolate in self.by_number.values() if is_seen(isolate)]

    def kill_for_operator(self, pid: int, answer: Callable[[bool], None]) -> None:
        """False: no isolate has this pid."""
        isolate = self._of_pid(pid)
        if isolate is not None:
            self._kill(isolate, Cause.OPERATOR)
        self.callbacks.append(partial(answer, isolate is not None))

    def ask_stack(self, pid: int, answer: Callable[[str | None], None]) -> None:
        """None: nothing runs in an isolate of this pid. Empty: it did not answer."""
        isolate, now = self._of_pid(pid), monotonic()
        if isolate is not None and isolate.ask_stack(answer, now + timers.STACK_WAIT, now):
            self._timers.arm(isolate.alarm())
        else:
            self.callbacks.append(partial(answer, None))

    def set_log_level(self, level: int) -> None:
        self._boot = replace(self._boot, log_level=level)
        self.hosts.set_log_level(level)

    def _of_pid(self, pid: int) -> Isolate | None:
        return next((each for each in self.by_number.values() if each.pid == pid and pid), None)

    def spawn_missing(self) -> None:
        now = monotonic()
        self._execute(self.allocator.decide(now))
        self._execute(self.hosts.poll(now))

    def close_down(self) -> None:
        """Everything ends: what runs is killed, what waits ends as stopped, what is idle leaves."""
        self.allocator.closed = True
        self._execute(self.hosts.close_down())
        for call in self.allocator.withdraw_all():
            self._end(call, Stopped(StopReason.SHUTDOWN, started=False))
        for isolate in list(self.by_number.values()):
            self._kill(isolate, Cause.CLOSING)

    def kill_leaving(self) -> None:
        """Nobody waits for exit hooks."""
        for isolate in self.by_number.values():
            if isolate.leave_by < inf:
                self._begin_kill(isolate)

    def interrupted(self) -> None:
        """A submitter's thread was interrupted while it sent a call: what it left undone is done here, for other calls may wait for it; an
        isolate that may hold half of a call, or none, is of no use."""
        self._executing = False
        self._execute(())
        for number in self.allocator.booting - self.by_number.keys():  # it was counted, and perhaps never ordered: another takes its place
            self._execute(self.allocator.exited(number, monotonic()))
        for number in list(self.allocator.busy):
            isolate = self.by_number[number]
            if isolate.sent_number != isolate.call_number or (isolate.call is None and isolate.life.state is State.IDLE):
                self._kill(isolate, Cause.UNSENT)

    # -- orders of the allocator, actions of the supervisor --------------------------------------------------------------------------

    def _execute(self, actions: Iterable[Action]) -> None:
        """Actions that one brings about are taken in line: a thousand calls that end before they begin must not nest."""
        self._actions.extend(actions)
        if self._executing:
            return
        self._executing = True
        try:
            while self._actions:
                self._carry_out(self._actions.popleft())
        finally:
            self._executing = False

    def _carry_out(self, action: Action) -> None:
        match action:
            case Assign(number, call):
                self._send(self.by_number[number], call)
            case Notify(callback):
                self.callbacks.append(callback)
            case Send(host, data):
                self._push(host, data)
            case Arm(at):
                self._timers.arm(at)
            case SharedSlot(hosted):
                self._execute(self.hosts.seat(hosted))
            case Spawn(number):
                # Never on a submitter's thread: Ctrl-C in the middle would leave an isolate that nobody has asked for.
                self._later(lambda: self._spawn(number))
            case StartHost(number):
                self._start_host(number)
            case Retire(number):
                self._kill(self.by_number[number], Cause.RESIZED)
            case GiveUp(call):
                self._end(call, BootFailed(self._boot_failure))
            case Draining(host, why):
                self._notice(host, "draining", why)
            case KillHost(host):
                self._kill(host, Cause.DRAINED)

    # -- calls go out --------------------------------------------------------------------------------------------------------------

    def _send(self, isolate: Isolate, call: Call) -> None:
        if call.stop is not None:
            self._end_unbegun(call)
            self._execute(self.allocator.freed(isolate.number, monotonic()))
            return
        limits = call.job.limits
        if limits.memory is not None and isolate.hidden:
            self._refuse(isolate, call, endings.unmeasured())
            return
        try:
            definition = isolate.define(call.job.entry)
        except BaseException as error:  # user code, in the core: pickling an entrypoint calls whatever it refers to
            self._refuse(isolate, call, endings.unsendable(error))
            return
        self._numbers += 1
        now, table = monotonic(), self.keeper.table
        deadlines = Deadlines(limits, now)
        isolate.assign(call, self._numbers, deadlines)
        call.caller.sent()
        kill_at = deadlines.kill_at
        if not table.send(isolate.seat, self._numbers, 0.0 if kill_at == inf else kill_at):
            self._kill(isolate, Cause.VERDICT)
            return
        if kill_at + shared_row.MARGIN < table.armed:
            self.keeper.wake()
        if limits.cpus is not None:
            self._claim(isolate, call, limits.cpus)
        self._push(isolate, call_frame(self._numbers, call.job, now, definition, isolate.cpus), call.job.descriptor)
        self._timers.arm(deadlines.next_at)
        if limits.memory is not None:
            self._memory.watch(isolate.number, self._numbers, isolate.view, limits.memory)
        isolate.sent_number = self._numbers

    def _refuse(self, isolate: Isolate, call: Call, outcome: Failed) -> None:
        self._end(call, outcome)
        self._execute(self.allocator.freed(isolate.number, monotonic()))

    def _claim(self, isolate: Isolate, call: Call, count: int) -> None:
        isolate.cpus = self.cores.claim(count)
        if not isolate.cpus:
            text = f"no {count} of {len(self.cores.allowed)} cores are free for this call alone: it runs on all of them"
            self.callbacks.append(partial(call.caller.output, logging.WARNING, "stem_iso", text))

    def _push(self, isolate: Isolate, data: bytes, descriptor: int | None = None) -> None:
        """Send it; what does not fit goes out when there is room."""
        if not isolate.pipe.send(data, descriptor):
            self._epoll.modify(isolate.pipe.link, select.EPOLLIN | select.EPOLLOUT)

    # -- isolates start ------------------------------------------------------------------------------------------------------------

    def _spawn(self, number: int) -> None:
        if number not in self.allocator.booting:
            return  # taken back (`interrupted`)
        if self.allocator.closed:
            self.allocator.exited(number, monotonic())
            return
        try:
            isolate = Isolate(number, self.keeper.free_seat, monotonic() + self._boot.time_limit, self._boot.largest_frame)
            isolate.leave_room()
        except OSError as error:  # no descriptor, no memory
            self._boot_failure = f"{type(error).__name__}: {error}"
            if self.allocator.boot_failures == 0:  # said once, until a boot succeeds again
                self._no_process(self._boot_failure)
            self._boot_failed(number)
        else:
            self._launch(isolate, self._boot)

    def _boot_failed(self, number: int) -> None:
        self._execute(self.allocator.boot_failed(number, monotonic()))
        self._timers.arm(self.allocator.boot_after)  # here alone: a time that has passed would fire for ever

    def _start_host(self, number: int) -> None:
        try:
            host, boot = self.hosts.start(number, self.keeper.free_seat)
        except OSError as error:  # no descriptor, no memory
            why = f"{type(error).__name__}: {error}"
            if self.hosts.roster.boot_failures == 0:
                self._no_process(why)
            self._execute(self.hosts.not_started(number, why))
        else:
            self._launch(host, boot)

    def _no_process(self, why: str) -> None:
        """An isolate or a host could not even be begun."""
        text = "no further process could be started (%s): tasks run in those there are, and it is tried again"
        self.callbacks.append(partial(log.warning, text, why))
        self._emit(IsolateNotice("boot-failed", 0, "boot failed", why))

    def _launch(self, isolate: Isolate, boot: Boot) -> None:
        self.by_number[isolate.number] = isolate
        isolate.adopt = wire.frame(wire.ADOPT, 0, msgspec.msgpack.encode(boot))
        for fd in isolate.streams:
            self._register(fd, isolate, self._streams)
        self._register(isolate.pipe.link.fileno(), isolate, self._by_fd)
        try:
            self.keeper.launch(isolate.number, isolate.theirs, boot.secrets, max(1, self.cores.most // self.allocator.size))
        except KeeperLost:
            return  # the engine sees the end of the connection, and then all isolates go
        except NO_START as error:
            self._not_started(isolate, f"{type(error).__name__}: {error}")
        else:
            isolate.hand_over()
            self._oom_kills.grew()  # what the kernel kills from now on may be this one
            self._timers.arm(isolate.boot_deadline)

    def _not_started(self, isolate: Isolate, why: str) -> None:
        isolate.broken = why
        self._exited(isolate, UNKNOWN_EXIT)

    def _started(self, started: Started) -> None:
        """Its process is there: from now on it can be killed, and may run what it is sent."""
        isolate = self.by_number[started.number]
        isolate.pid = started.pid
        if not started.fds:
            # This process has no descriptor free: nobody could kill it, so it is not adopted, and leaves without user code.
            isolate.broken = "no descriptor was free for its process"
            isolate.pipe.end()
            return
        isolate.pidfd, isolate.keeper = started.fds[0], self.keeper
        isolate.view, isolate.hidden = MemoryReader(started.pid, *started.fds[1:]), started.hides and not started.shown
        self._register(isolate.pidfd, isolate, self._by_fd)
        self._push(isolate, isolate.adopt)
        self._notice(isolate, "spawned")
        if isolate.life.state is State.DYING:
            self._begin_kill(isolate)

    def _ready(self, isolate: Isolate, payload: bytes) -> None:
        isolate.ready, isolate.booted = payload, True
        isolate.boot_deadline, isolate.last_look = inf, None
        isolate.life.ready()
        self._notice(isolate, "ready")
        if isolate.life.state is State.IDLE:
            if isinstance(isolate, SharedHost):
                self._execute(self.hosts.ready(isolate))
            else:
                self._execute(self.allocator.ready(isolate.number, monotonic()))

    # -- what descriptors have -----------------------------------------------------------------------------------------------------

    def read_streams(self, fds: Iterable[int]) -> None:
        """Printed text and stacks, before anything else of the same turn."""
        for fd in fds:
            if (isolate := self._streams.get(fd)) is not None:
                self._read_stream(isolate, fd)

    def on_event(self, fd: int, flags: int) -> None:
        isolate = self._by_fd.get(fd)
        if isolate is None:
            return
        if fd == isolate.pidfd:
            isolate.exited(monotonic())
            if isolate.unkept:
                self._exited(isolate, Exit(died_at=isolate.died_at))
            else:
                self._unregister(fd)
                self._timers.arm(isolate.alarm())
            return
        if flags & select.EPOLLOUT and isolate.pipe.flush():
            self._epoll.modify(fd, select.EPOLLIN)
        if flags & ~select.EPOLLOUT and isolate not in self.behind:
            self._read(isolate, fd, isolate.pipe.receive)

    def catch_up(self) -> None:
        """The next of the frames that were too many for one turn."""
        for isolate in list(self.behind):
            backlog, isolate.backlog = isolate.backlog, []
            self.behind.discard(isolate)
            self._read(isolate, isolate.pipe.link.fileno(), lambda: backlog)  # noqa: B023  called at once

    def _read(self, isolate: Isolate, fd: int, receive: Callable[[], list[wire.Frame]]) -> None:
        try:
            received = receive()
            if len(received) > FRAMES:  # one that floods its pipe must not hold up the limits of others
                received, isolate.backlog = received[:FRAMES], received[FRAMES:]
                self.behind.add(isolate)
            if len(received) > 1:  # the turn began with the first; what was printed before the last is there by now
                self.read_streams(isolate.streams)
            for frame in received:
                self._on_frame(isolate, frame)
        except wire.Garbage:
            self._garbage(isolate, fd)
        except Exception:  # whatever its bytes made of our code: it costs the isolate that sent them, and nobody else
            log.exception("isolate %d sent what could not be taken in", isolate.pid)
            self._garbage(isolate, fd)
        else:
            if not received and isolate.pipe.at_end():
                self._unregister(fd)  # the end of a pipe proves nothing; the exit will

    def _garbage(self, isolate: Isolate, fd: int) -> None:
        self.behind.discard(isolate)
        isolate.backlog = []
        self._kill(isolate, Cause.GARBAGE)
        self._unregister(fd)

    def _read_stream(self, isolate: Isolate, fd: int) -> None:
        if fd != isolate.stack_fd:
            self._output(isolate, isolate.read_output(fd))
        elif isolate.read_stack() and isolate.awaits_stack:
            self._timers.arm(timers.stack_came(isolate, monotonic()))
        if fd in isolate.ended_streams:
            self._unregister(fd)

    def _register(self, fd: int, isolate: Isolate, among: dict[int, Isolate]) -> None:
        among[fd] = isolate
        self._epoll.register(fd, select.EPOLLIN)

    def _unregister(self, fd: int) -> None:
        if self._by_fd.pop(fd, None) is not None or self._streams.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    # -- what an isolate says ------------------------------------------------------------------------------------------------------

    def _on_frame(self, isolate: Isolate, frame: wire.Frame) -> None:
        """Raises Garbage where the frame cannot mean anything now."""
        found, number = frames.read(isolate, frame), frame.number
        if type(found) is frames.ReplyFrame and not isolate.shared:  # nearly all are: by itself it takes a third of the time
            self._replied(isolate, found.outcome, found.left)
            return
        match found:
            case frames.RequestFrame(payload, waits):
                self._beat(isolate, number)
                if (caller := isolate.caller_of(number)) is not None:
                    self.callbacks.append(partial(caller.on_message, payload, self._answerer(isolate, number) if waits else None))
            case frames.BeatFrame():
                self._beat(isolate, number)
                if (caller := isolate.caller_of(number)) is not None:
                    self.callbacks.append(caller.beat)
            case frames.LogFrame(level, logger, text, details) if not isolate.shared or isolate.caller_of(number) is None:
                self._beat(isolate, number)
                self._output(isolate, isolate.capture.log(level, logger, text, details))
            case frames.ReadyFrame(payload):
                self._ready(isolate, payload)
            case frames.BrokenFrame(traceback):
                isolate.broken = traceback
            case None:
                pass
            case _:
                assert isinstance(isolate, SharedHost)
                self._execute(self.hosts.on_frame(isolate, number, found))

    def _beat(self, isolate: Isolate, number: int) -> None:
        """Any frame of the handler proves that it is alive."""
        kill_at = isolate.beat(number, monotonic())
        if kill_at is not None:
            self.keeper.table.set_deadline(isolate.seat, kill_at)

    def _answerer(self, isolate: Isolate, number: int) -> Answer:
        def send(payload: bytes) -> None:
            if isolate.caller_of(number) is not None:
                self._push(isolate, wire.frame(wire.ANSWER, number, payload))

        return lambda payload: self._later(partial(send, payload))

    def _output(self, isolate: Isolate, lines: Iterable[Line]) -> None:
        for line in lines:
            if isolate.call is not None:
                self.callbacks.append(partial(isolate.call.caller.output, *line))
            else:
                self.callbacks.append(partial(_log_of_none, isolate.pid, *line))

    def _replied(self, isolate: Isolate, outcome: Outcome, left: int) -> None:
        """A complete reply, while its process lives or after. `left`: what the handler left behind (`child.leftovers`)."""
        self.keeper.table.set_deadline(isolate.seat, 0.0)
        self._report_soft_limit(isolate)
        isolate.deadlines = None
        if left in (THREADS, PROCESSES) and isolate.died_at == 0.0:
            if isolate.life.keep(outcome):
                self.allocator.killed(isolate.number)
                self._begin_kill(isolate)
            return
        reported = isolate.life.replied(outcome)
        if reported is None:
            return
        self._report(isolate, reported)
        if isolate.died_at:
            return
        cause = Cause.STATE if left else isolate.worn_out(self._max_calls, self._max_memory)
        if cause is None:
            self._execute(self.allocator.freed(isolate.number, monotonic()))
        else:
            self.allocator.answered(isolate.number)
            self._kill(isolate, cause)
            self._execute(self.allocator.decide(monotonic()))

    # -- timers --------------------------------------------------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        """Whatever is due; then the timer is set for the next."""
        self._timers.fired()
        for isolate in list(self.by_number.values()):
            if isolate.alarm() <= now:
                self._on_alarm(isolate, now)
        if self._next_boot() <= now:
            self.spawn_missing()
        earliest = min((isolate.alarm() for isolate in self.by_number.values()), default=inf)
        next_boot = self._next_boot()
        self._timers.arm(min(earliest, next_boot) if next_boot > now else earliest)

    def _next_boot(self) -> float:
        """The earliest boot that was put off."""
        put_off = (each.boot_after for each in (self.allocator, self.hosts.roster) if each.boot_failures)
        return min(put_off, default=inf)

    def _on_alarm(self, isolate: Isolate, now: float) -> None:
        if isinstance(isolate, SharedHost):
            self._execute(self.hosts.due(isolate, now))
        for due in timers.due(isolate, now):
            match due:
                case timers.SoftLimitDue():
                    self._report_soft_limit(isolate)
                case timers.StackDue():
                    self._answer_stack(isolate)
                case timers.KillDue(cause):
                    self._kill(isolate, cause)
                case timers.KillPutOff(until):
                    if isolate.call is not None:
                        self.keeper.table.set_deadline(isolate.seat, until)
                    self._timers.arm(until)
                case timers.LeaveOver():
                    self._begin_kill(isolate)
                case timers.StuckDue():
                    self._stuck(isolate.stuck())

    def _over_memory(self, number: int, call_number: int, used: int) -> None:
        """The watch found that this call holds too much; unless it has ended meanwhile."""
        isolate = self.by_number.get(number)
        if isolate is not None and isolate.call_number == call_number and isolate.life.state is State.BUSY:
            isolate.memory_used = used
            self._kill(isolate, Cause.MEMORY)

    # -- kills ---------------------------------------------------------------------------------------------------------------------

    def _kill(self, isolate: Isolate, cause: Cause) -> None:
        """An idle one, of which nothing is wrong, ends by itself, and runs the exit hooks that user code has set up."""
        if isolate.life.killed(cause):
            self._count_out(isolate)
            if cause in RETIRING and isolate.may_leave:
                isolate.dismiss(monotonic())
                self._timers.arm(isolate.alarm())
            else:
                self._begin_kill(isolate)

    def _count_out(self, isolate: Isolate) -> None:
        if isinstance(isolate, SharedHost):
            self.hosts.left(isolate)
        else:
            self.allocator.killed(isolate.number)

    def _begin_kill(self, isolate: Isolate) -> None:
        if isolate.pid and not isolate.signalled_at:
            isolate.begin_kill(monotonic(), self.keeper)
            self._timers.arm(isolate.alarm())

    # -- reports of the keeper -----------------------------------------------------------------------------------------------------

    def on_report(self, report: Started | NotStarted | Exited | Stuck) -> None:
        match report:
            case Exited():
                isolate = self.by_number[report.number]
                self._exited(isolate, Exit.of(report, isolate))
            case Started():
                self._started(report)
            case NotStarted(number, why):
                self._not_started(self.by_number[number], why)
            case Stuck():
                self._stuck(report)

    def _stuck(self, stuck: Stuck) -> None:
        """It, or something that it started, does not die: another takes its place. Its call is not over before the exit."""
        self._emit(IsolateNotice("stuck", stuck.pid, stuck.why, title=stuck.title))
        isolate = self.by_number.get(stuck.number)
        if isolate is not None and not isolate.set_aside:
            isolate.set_aside = True
            if isinstance(isolate, SharedHost):
                self._execute(self.hosts.stuck(isolate))
            else:
                self._execute(self.allocator.stuck(isolate.number, monotonic()))

    def keeper_lost(self) -> None:
        """Kill every tree by ourselves, now, and end what ran there. What does not die is waited for with its call unended, as ever."""
        self._pause(True)
        isolates = list(self.by_number.values())
        for isolate in isolates:
            if isolate.life.killed(Cause.KEEPER_LOST):
                self._count_out(isolate)
        held = [isolate for isolate in isolates if isolate.pidfd >= 0]
        for isolate in held:
            process_tree.run(isolate.kill or process_tree.kill_tree(isolate.pid, isolate.pidfd))
            isolate.kill = None
        self.keeper.cut_lifeline()
        end = monotonic() + STUCK_AFTER
        for isolate in isolates:
            if isolate not in held or process_tree.has_exited(isolate.pidfd, max(0.0, end - monotonic())):
                self._exited(isolate, Exit(died_at=monotonic()))
            else:
                isolate.unkept = True
                self._stuck(isolate.stuck())

    def keeper_replaced(self) -> None:
        self._pause(False)
        self.spawn_missing()

    def _pause(self, paused: bool) -> None:
        self.allocator.paused = self.hosts.roster.paused = paused

    # -- endings -------------------------------------------------------------------------------------------------------------------

    def _exited(self, isolate: Isolate, end: Exit) -> None:
        """The exit is confirmed and its descendants are dead."""
        isolate.died_at = isolate.died_at or end.died_at or monotonic()
        for fd in isolate.streams:
            self._read_stream(isolate, fd)
        self._read_rest(isolate)
        if isinstance(isolate, SharedHost):
            self._host_exited(isolate, end)
            return
        started = isolate.page.started == isolate.call_number
        verdict = shared_row.verdict_on(self.keeper.table.verdict(isolate.seat), isolate.call_number)
        limit_at = isolate.deadlines.kill_at if isolate.deadlines else 0.0
        ending = isolate.life.exited(started=started, verdict=verdict, before_limit=end.before(limit_at))
        if ending is not None:
            self._on_ending(isolate, ending, started, end)
        failure = self._boot_failure_of(isolate, end)
        self._boot_failure = failure or self._boot_failure
        self._drop(isolate)
        if failure is None:
            self._execute(self.allocator.exited(isolate.number, monotonic()))
        else:
            self._boot_failed(isolate.number)

    def _read_rest(self, isolate: Isolate) -> None:
        """The frames that it wrote before it died."""
        backlog, isolate.backlog = isolate.backlog, []
        for frame in chain(backlog, isolate.pipe.drain()):
            try:
                self._on_frame(isolate, frame)
            except wire.Garbage:
                return
            except Exception:  # as while it lived: its bytes must not keep its end from being reported
                log.exception("isolate %d left what could not be taken in", isolate.pid)
                return

    def _host_exited(self, host: SharedHost, end: Exit) -> None:
        host.life.exited(started=True, verdict=False)  # its calls are not the lifecycle's, which knows of one at a time
        self._execute(self.hosts.exited(host, end, self._boot_failure_of(host, end), self._death(host, end)))
        self._drop(host)

    def _boot_failure_of(self, isolate: Isolate, end: Exit) -> str | None:
        failure = endings.boot_failure(isolate, end, self._boot.time_limit)
        if failure is None:
            self._notice(isolate, "recycled", endings.reason(isolate, end))
        else:
            self._notice(isolate, "boot-failed", "boot failed", failure)
        return failure

    def _on_ending(self, isolate: Isolate, ending: Ending, started: bool, end: Exit) -> None:
        if isinstance(ending, NeverStarted):
            self._run_elsewhere(isolate, end)
            return
        outcome = self._death(isolate, end) if isinstance(ending, Died) else endings.of_ending(isolate, ending, started, end)
        if isinstance(outcome, TimedOut):
            self._report_soft_limit(isolate)
            self._report_limit(isolate, LimitNotice.of(outcome, isolate.title))
        self._report(isolate, outcome)

    def _death(self, isolate: Isolate, end: Exit) -> Crashed:
        return endings.of_death(isolate, end, starved=end.signal == "SIGKILL" and self._oom_kills.grew())

    def _run_elsewhere(self, isolate: Isolate, end: Exit) -> None:
        call = self._release(isolate)
        call.tries += endings.is_suspect(isolate, end)
        if self.allocator.closed:
            self._end(call, Stopped(StopReason.SHUTDOWN, started=False))
        elif call.tries > REASSIGNMENTS:
            self._end(call, self._death(isolate, end))
        else:
            self.allocator.requeue(call, call.job.priority, call.arrival)

    def _report_soft_limit(self, isolate: Isolate) -> None:
        """With the stack as far as it has come; nothing if there is none to report."""
        if isolate.soft_limit is not None and (notice := isolate.take_soft_notice()) is not None:
            self._report_limit(isolate, notice)

    def _answer_stack(self, isolate: Isolate) -> None:
        if isolate.asking:
            asking, stack = isolate.answers()
            self.callbacks += (partial(answer, stack) for answer in asking)

    def _report_limit(self, isolate: Isolate, notice: LimitNotice) -> None:
        assert isolate.call is not None
        self.callbacks.append(partial(isolate.call.caller.limit_reached, notice))

    def _report(self, isolate: Isolate, outcome: Outcome) -> None:
        self._report_soft_limit(isolate)
        self._output(isolate, isolate.capture.finish())
        call, descriptor = self._release(isolate), isolate.pipe.take_descriptor()
        if descriptor is not None:
            self.callbacks.append(partial(call.caller.received, descriptor))
        self._end(call, outcome)

    def _end_unbegun(self, call: Call) -> None:
        self._end(call, Stopped(call.stop or StopReason.SHUTDOWN, started=False))

    def _release(self, isolate: Isolate) -> Call:
        """The call has ended here, or goes elsewhere: what it had of the machine is free again."""
        self._answer_stack(isolate)
        call = isolate.release()
        if call.job.limits.memory is not None:
            self._memory.forget(isolate.number)
        if isolate.cpus:
            self.cores.give_back(isolate.cpus)
            isolate.cpus = ()
        return call

    def _end(self, call: Call, outcome: Outcome) -> None:
        self.callbacks.append(partial(call.caller.ended, outcome))

    def _drop(self, isolate: Isolate) -> None:
        for fd in (*isolate.streams, isolate.pipe.link.fileno(), isolate.pidfd):
            self._unregister(fd)
        self.behind.discard(isolate)
        isolate.close()
        del self.by_number[isolate.number]
        self.keeper.give_back(isolate.seat)

    def _notice(self, isolate: Isolate, action: str, reason: str | None = None, trace: str = "") -> None:
        self._emit(IsolateNotice(action, isolate.pid, reason, trace))

    def _emit(self, notice: IsolateNotice) -> None:
        self.callbacks.append(partial(self._on_isolate, notice))


def _log_of_none(pid: int, level: int, logger: str, text: str, details: bytes) -> None:
    """What an isolate printed or logged outside of a call: at its boot, mostly."""
    if not log.isEnabledFor(level):
        return
    if logger in (STDOUT, STDERR):
        log.log(level, "isolate %d, %s: %s", pid, logger, text)
    else:
        found = log_record.unpacked(details)
        log_record.pass_on(log, log_record.restored(level, logger, text, found, {"isolate": pid}), found.handled)
