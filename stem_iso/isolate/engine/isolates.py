"""The isolates of one engine, and what is done with them.

    orders of `allocator` ──> spawn · send (`dispatch`) · retire · give up
    frames, output, exits ──> `lifecycle` ──> `callbacks` of callers
    `timers` ──> soft limits, stacks, kills

Everything here runs under the engine's lock. Callbacks of callers wait in `callbacks` until the engine has left the lock.
"""

from __future__ import annotations

import logging
import select
from collections.abc import Callable, Iterable
from math import inf
from time import monotonic

from stem_iso.isolate import wire
from stem_iso.isolate.child.leftovers import PROCESSES, THREADS
from stem_iso.isolate.engine.allocator import Allocator, Assign, GiveUp, Order, Retire, SharedSlot, Spawn
from stem_iso.isolate.engine.call import Call
from stem_iso.isolate.engine.cpus import Cores
from stem_iso.isolate.engine.dispatch import Dispatch
from stem_iso.isolate.engine.endings import Exit, ExitHandler
from stem_iso.isolate.engine.frames import FrameReader
from stem_iso.isolate.engine.isolate import FRAMES, Isolate
from stem_iso.isolate.engine.keeper_client import KeeperClient
from stem_iso.isolate.engine.keeper_connection import KeeperConnection
from stem_iso.isolate.engine.keeper_pressure import WAKE
from stem_iso.isolate.engine.lifecycle import RETIRING, Cause, State
from stem_iso.isolate.engine.memory import MemoryWatcher
from stem_iso.isolate.engine.shared_host.call import HostCall
from stem_iso.isolate.engine.shared_host.host import SharedHost
from stem_iso.isolate.engine.shared_host.supervisor import HostBoot, HostSupervisor
from stem_iso.isolate.engine.timers import Timers
from stem_iso.isolate.interfaces import Boot, IsolateNotice
from stem_iso.isolate.linux import Timer
from stem_iso.outcome import BootFailed, Outcome, Stopped, StopReason

log = logging.getLogger("stem_iso.isolate")


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
        self.boot, self._later = boot, later
        self.fleet: Allocator[Call, HostCall] = Allocator(size, spares)
        self.callbacks: list[Callable[[], None]] = []
        self.orders: list[Order[Call, HostCall]] = []  # those that are being carried out
        self._max_calls, self._max_memory, self._on_isolate = max_calls, max_memory, on_isolate
        self.cores = Cores()
        self.by_number: dict[int, Isolate] = {}
        self._by_fd: dict[int, Isolate] = {}
        self.behind: set[Isolate] = set()  # those that have a backlog
        self.dispatch = Dispatch(self)
        self.keeping = KeeperClient(self)
        self.exits = ExitHandler(self)
        self.hearing = FrameReader(self, later)
        self.hosting = HostSupervisor(self, host, later)
        self.watcher = MemoryWatcher(lambda *found: later(lambda: self._over_memory(*found)))

    def open(self, link: KeeperConnection, epoll: select.epoll, timer: Timer) -> None:
        self.link, self._epoll, self.clocks = link, epoll, Timers(self, timer)

    @property
    def empty(self) -> bool:
        """Nothing is left to wait for: what will not die has been set aside."""
        return all(isolate.set_aside for isolate in self.by_number.values())

    # -- orders ------------------------------------------------------------------------------------------------------------------

    def obey(self, orders: list[Order[Call, HostCall]]) -> None:
        """Orders that obeying one brings about are taken in line: a thousand calls that end before they begin must not nest."""
        if self.orders:
            self.orders.extend(orders)
            return
        try:
            self.orders = orders
            for order in orders:
                self._carry_out(order)
        finally:
            self.orders = []
        if self.fleet.boot_failures:
            self.clocks.arm(self.fleet.boot_after)

    def _carry_out(self, order: Order[Call, HostCall]) -> None:
        match order:
            case Assign(number, call):
                self.dispatch.assign(self.by_number[number], call)
            case SharedSlot(hosted):
                self.hosting.seat(hosted)
            case Spawn(number):
                # Never on a submitter's thread: Ctrl-C in the middle would leave an isolate that nobody has asked for.
                self._later(lambda: self.keeping.spawn(number))
            case Retire(number):
                self.condemn(self.by_number[number], Cause.RESIZED)
            case GiveUp(call):
                self.end(call, BootFailed(self.exits.last_broken))

    # -- wishes ------------------------------------------------------------------------------------------------------------------

    def submit(self, call: Call | HostCall) -> None:
        now, priority = monotonic(), call.job.priority
        if isinstance(call, HostCall):
            call.arrival, orders = self.fleet.submit_hosted(call, priority, now)
            self.hosting.look(now)
        else:
            call.arrival, orders = self.fleet.submit(call, priority, now)
        self.obey(orders)

    def withdraw(self, call: Call | HostCall) -> bool:
        if isinstance(call, HostCall):
            return call.host is None and bool(self.fleet.withdraw_hosted(call))
        return call.isolate is None and self.fleet.withdraw(call.arrival)

    def stop(self, call: Call | HostCall, reason: StopReason) -> None:
        """What waits ends, and does not begin."""
        if isinstance(call, HostCall):
            self.hosting.stop(call, reason)
        elif call.isolate is None:
            if self.fleet.withdraw(call.arrival):
                self.end_unbegun(call)
        elif (isolate := self.by_number.get(call.isolate)) is not None and isolate.call is call:
            self.condemn(isolate, Cause.STOPPED)

    def _over_memory(self, number: int, call_number: int, used: int) -> None:
        """The watch found that this call holds too much; unless it has ended meanwhile."""
        isolate = self.by_number.get(number)
        if isolate is not None and isolate.call_number == call_number and isolate.life.state is State.BUSY:
            isolate.memory_used = used
            self.condemn(isolate, Cause.MEMORY)

    def close_down(self) -> None:
        """Everything ends: what runs is killed, what waits ends as stopped, what is idle leaves."""
        self.fleet.closed = True
        self.hosting.close_down()
        for call in self.fleet.withdraw_all():
            self.end(call, Stopped(StopReason.SHUTDOWN, started=False))
        for isolate in list(self.by_number.values()):
            self.condemn(isolate, Cause.CLOSING)

    def kill_leaving(self) -> None:
        """Nobody waits for exit hooks."""
        for isolate in self.by_number.values():
            if isolate.leave_by < inf:
                self.begin_kill(isolate)

    def condemn(self, isolate: Isolate, cause: Cause) -> None:
        """It is killed; an idle one, of which nothing is wrong, ends by itself, and runs the exit hooks that user code has set up."""
        if isolate.life.condemned(cause):
            self.count_out(isolate)
            if cause in RETIRING and isolate.may_leave:
                isolate.dismiss(monotonic())
                self.clocks.arm(isolate.alarm())
            else:
                self.begin_kill(isolate)

    def count_out(self, isolate: Isolate) -> None:
        if isinstance(isolate, SharedHost):
            self.hosting.left(isolate)
        else:
            self.fleet.condemned(isolate.number)

    def begin_kill(self, isolate: Isolate) -> None:
        if isolate.pid and not isolate.signalled_at:
            isolate.begin_kill(monotonic(), self.link)
            self.clocks.arm(isolate.alarm())

    def set_aside(self, isolate: Isolate) -> None:
        """It, or something that it started, does not die: another takes its place. Its call is not over before the exit."""
        if isolate.set_aside:
            return
        isolate.set_aside = True
        if isinstance(isolate, SharedHost):
            self.hosting.stuck(isolate)
        else:
            self.obey(self.fleet.stuck(isolate.number, monotonic()))

    def push(self, isolate: Isolate, data: bytes, descriptor: int | None = None) -> None:
        """Send it; what does not fit goes out when there is room."""
        if not isolate.pipe.send(data, descriptor):
            self._epoll.modify(isolate.pipe.link, select.EPOLLIN | select.EPOLLOUT)

    def wake_up(self, now: float) -> None:
        """Spawn what is missing."""
        self.obey(self.fleet.decide(now))
        self.hosting.look(now)

    # -- what descriptors have -----------------------------------------------------------------------------------------------------

    def output(self, fds: Iterable[int]) -> None:
        """Printed text and stacks, before anything else of the same turn."""
        for fd in fds:
            isolate = self._by_fd.get(fd)
            if isolate is not None and fd in isolate.streams:
                self.hearing.stream(isolate, fd)

    def event(self, fd: int, flags: int) -> None:
        isolate = self._by_fd.get(fd)
        if isolate is None or fd in isolate.streams:
            return
        if fd == isolate.pidfd:
            isolate.died_at = monotonic()
            if isolate.unkept:
                self.exits.gone(isolate, Exit(died_at=isolate.died_at))
                return
            isolate.press, isolate.turns = isolate.died_at + WAKE, self.link.table.turns
            self.unregister(fd)
            self.clocks.arm(isolate.alarm())
            return
        if flags & select.EPOLLOUT and isolate.pipe.flush():
            self._epoll.modify(fd, select.EPOLLIN)
        if flags & ~select.EPOLLOUT and isolate not in self.behind:
            self._read(isolate, fd, isolate.pipe.receive)

    def catch_up(self) -> None:
        """The next of the frames that were too many for one turn."""
        for isolate in list(self.behind):
            frames, isolate.backlog = isolate.backlog, []
            self.behind.discard(isolate)
            self._read(isolate, isolate.pipe.link.fileno(), lambda: frames)  # noqa: B023  called at once

    def _read(self, isolate: Isolate, fd: int, receive: Callable[[], list[wire.Frame]]) -> None:
        try:
            frames = receive()
            if len(frames) > FRAMES:  # one that floods its pipe must not hold up the limits of others
                frames, isolate.backlog = frames[:FRAMES], frames[FRAMES:]
                self.behind.add(isolate)
            if len(frames) > 1:  # the turn began with the first; what was printed before the last is there by now
                self.output(isolate.streams)
            for frame in frames:
                self.hear(isolate, frame)
        except wire.Garbage:
            self._garbage(isolate, fd)
        except Exception:  # whatever its bytes made of our code: it costs the isolate that sent them, and nobody else
            log.exception("isolate %d sent what could not be taken in", isolate.pid)
            self._garbage(isolate, fd)
        else:
            if not frames and isolate.pipe.at_end():
                self.unregister(fd)  # the end of a pipe proves nothing; the exit will

    def _garbage(self, isolate: Isolate, fd: int) -> None:
        self.behind.discard(isolate)
        isolate.backlog = []
        self.condemn(isolate, Cause.GARBAGE)
        self.unregister(fd)

    def hear(self, isolate: Isolate, frame: wire.Frame) -> None:
        """Raises Garbage where the frame cannot mean anything now."""
        if isinstance(isolate, SharedHost):
            self.hosting.hearing.frame(isolate, frame)
        else:
            self.hearing.frame(isolate, frame)

    # -- endings -------------------------------------------------------------------------------------------------------------------

    def replied(self, isolate: Isolate, outcome: Outcome, left: int) -> None:
        """A complete reply, while its process lives or after. `left`: what the handler left behind (`child.leftovers`)."""
        self.link.table.set_deadline(isolate.seat, 0.0)
        self.hearing.soft_event(isolate)
        isolate.deadlines = None
        if left in (THREADS, PROCESSES) and isolate.died_at == 0.0:
            if isolate.life.keep(outcome):
                self.fleet.condemned(isolate.number)
                self.begin_kill(isolate)
            return
        reported = isolate.life.replied(outcome)
        if reported is None:
            return
        self.report(isolate, reported)
        if isolate.died_at:
            return
        cause = Cause.STATE if left else isolate.worn_out(self._max_calls, self._max_memory)
        if cause is None:
            self.obey(self.fleet.freed(isolate.number, monotonic()))
        else:
            self.fleet.answered(isolate.number)
            self.condemn(isolate, cause)
            self.obey(self.fleet.decide(monotonic()))

    def ready(self, isolate: Isolate, said: bytes) -> None:
        isolate.ready, isolate.booted = said, True
        isolate.boot_deadline, isolate.last_look = inf, None
        isolate.life.ready()
        self.notice(isolate, "ready")
        if isolate.life.state is not State.IDLE:
            return
        if isinstance(isolate, SharedHost):
            self.hosting.ready(isolate)
        else:
            self.obey(self.fleet.ready(isolate.number, monotonic()))

    def report(self, isolate: Isolate, outcome: Outcome) -> None:
        self.hearing.soft_event(isolate)
        self.hearing.rest_of_output(isolate)
        call, descriptor = self.release(isolate), isolate.pipe.take_descriptor()
        if descriptor is not None:
            self.callbacks.append(lambda: call.caller.received(descriptor))
        self.end(call, outcome)

    def end_unbegun(self, call: Call) -> None:
        self.end(call, Stopped(call.stop or StopReason.SHUTDOWN, started=False))

    def release(self, isolate: Isolate) -> Call:
        """The call has ended here, or goes elsewhere: what it had of the machine is free again."""
        call = isolate.release()
        if call.job.limits.memory is not None:
            self.watcher.forget(isolate.number)
        if isolate.cpus:
            self.cores.give_back(isolate.cpus)
            isolate.cpus = ()
        return call

    def end(self, call: Call, outcome: Outcome) -> None:
        self.callbacks.append(lambda: call.caller.ended(outcome))

    def drop(self, isolate: Isolate) -> None:
        for fd in (*isolate.streams, isolate.pipe.link.fileno(), isolate.pidfd):
            self.unregister(fd)
        self.behind.discard(isolate)
        isolate.close()
        del self.by_number[isolate.number]
        self.keeping.give_back(isolate.seat)

    # -- descriptors ---------------------------------------------------------------------------------------------------------------

    def register(self, fd: int, isolate: Isolate) -> None:
        self._by_fd[fd] = isolate
        self._epoll.register(fd, select.EPOLLIN)

    def unregister(self, fd: int) -> None:
        if self._by_fd.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def no_process(self, why: str) -> None:
        """An isolate or a host could not even be begun."""
        text = "no further process could be started (%s): tasks run in those there are, and it is tried again"
        self.callbacks.append(lambda: log.warning(text, why))
        self.callbacks.append(lambda: self._on_isolate(IsolateNotice("boot-failed", 0, "boot failed", why)))

    def notice(self, isolate: Isolate, action: str, reason: str | None = None, trace: str = "") -> None:
        self.emit(IsolateNotice(action, isolate.pid, reason, trace))

    def emit(self, notice: IsolateNotice) -> None:
        self.callbacks.append(lambda: self._on_isolate(notice))
