"""One isolate in the engine: its descriptors, its state, its deadlines. Decides nothing by itself.
It is one idea, what the engine knows of one process, and has as many parts as a process has.

call pipe ⇄ frames        stack pipe ─> dumps of faulthandler        stdout, stderr ─> captured output        pidfd ─> death
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from math import inf

from stem_iso.isolate import wire
from stem_iso.isolate.child.setup import FORCED_STACK_SIGNAL, NUDGE_SIGNAL, RAISE_SIGNAL, STACK_SIGNAL
from stem_iso.isolate.engine import stacks
from stem_iso.isolate.engine.call import Call
from stem_iso.isolate.engine.call_pipe import CallPipe
from stem_iso.isolate.engine.deadlines import Deadlines
from stem_iso.isolate.engine.keeper_client import KeeperClient, Stuck
from stem_iso.isolate.engine.keeper_watchdog import KILL, WAKE, Press, press
from stem_iso.isolate.engine.lifecycle import Cause, Lifecycle, State
from stem_iso.isolate.engine.memory import MemoryReader
from stem_iso.isolate.engine.output import STDERR, STDOUT, CapturedOutput, Line
from stem_iso.isolate.interfaces import Caller, EntrypointRef, LimitNotice
from stem_iso.isolate.keeper import process_tree
from stem_iso.isolate.keeper.orphans import why_alive
from stem_iso.isolate.shared_row import Page

CHUNK = 1 << 16  # one read empties a full pipe
FORCE_AFTER = 0.005  # seconds after the stack was asked for: a process that runs Python has written it, where it had a CPU
NUDGE = 0.01  # seconds until the signal that raises is sent again; each next pause is NUDGE_FACTOR times as long
NUDGE_FACTOR = 3
LEAVE_WITHIN = 2.0  # seconds for an idle isolate that is not needed any more to run its exit hooks; then it is killed
STUCK_AFTER = 0.75  # seconds: a process that was killed and does not die is named, and its place is taken by another
KILL_AGAIN = 0.05  # seconds until a keeper whose queue was full is asked again
TURN = 1 << 20  # bytes of output read in one turn: a flood must not hold up the limits of others

TURN_BLOCKS = 20  # and blocks of lines, each of which costs as much as many bytes
FRAMES = 200  # frames that are taken in from one isolate in one turn
ROOM = 24  # descriptors that are left free by the last isolate


class Isolate:
    """Owned by the engine, under its lock."""

    shared = False  # whether it runs many calls at a time

    def __init__(self, number: int, seat: int, boot_deadline: float, largest_frame: int) -> None:
        self.number, self.seat = number, seat
        self.life = Lifecycle()
        self.boot_deadline = boot_deadline
        self.pid, self.pidfd, self.unkept = 0, -1, False  # unkept: it has outlived its keeper, and nobody will report its exit
        self.view, self.hidden = MemoryReader(0), False  # what reads its memory; whether /proc has never shown it
        self.keeper: KeeperClient | None = None  # for what this process may not signal
        self.call: Call | None = None
        self.call_number = self.sent_number = 0
        self.calls = 0
        self.deadlines: Deadlines | None = None
        self.known: set[int] = set()  # entries whose definition is there
        self.adopt = self.ready = b""  # the first frame to it, and what its own first frame held
        self.capture = CapturedOutput()
        self.broken = ""  # the boot's traceback
        self.kill: process_tree.Kill | None = None
        self.kill_at = self.leave_by = inf  # when the kill goes on; by when it is to have left by itself
        self.killed: process_tree.Killed = ()
        self.signalled_at = self.died_at = 0.0
        self.soft_limit: tuple[float, float] | None = None  # limit and elapsed, of a report that waits for its stack
        self.stack_due = inf
        self.set_aside, self.booted = False, False
        self.nudge_at, self._nudge_pause = inf, NUDGE  # when the soft limit's exception is asked for again
        self.memory_used = 0  # bytes, when that was too much
        self.cpus: tuple[int, ...] = ()  # of its call alone
        self.soft_stack = ""  # of the call that runs
        # When the keeper is pressed for the report of the exit; its turns when we last looked; whether it was sent SIGCONT.
        self.press_at, self._turns, self._pressed = 0.0, -1, False
        self.ended_streams: set[int] = set()
        self._dump, self._dump_due = "", False  # what the stack pipe brought; whether it may bring more
        self._requested, self._answered = STACK_SIGNAL, False  # by which signal the last one was asked for, and whether any of it has come
        self._force_at, self._force_after = inf, FORCE_AFTER
        # The kill for a limit that waits for a stack: why, and until when at most.
        self.last_look: tuple[Cause, float] | None = None
        self.asking: list[Callable[[str], None]] = []  # who wants to see where the handler is now, and until when that is waited for
        self.asked_until = inf
        self.backlog: list[wire.Frame] = []  # received, and not taken in yet: too many for one turn
        self._open(largest_frame)

    def _open(self, largest_frame: int) -> None:
        """Its descriptors. Raises OSError, and leaves none open."""
        with ExitStack() as undo:
            self.pipe = CallPipe(largest_frame)
            undo.callback(self.pipe.close)
            undo.callback(os.close, self.pipe.theirs)
            page = os.memfd_create("stem_iso-page", os.MFD_CLOEXEC)
            undo.callback(os.close, page)
            os.ftruncate(page, Page.SIZE)
            self.page = Page(page)
            undo.callback(self.page.close)
            pipes = []
            for _ in range(3):
                pipes.append(os.pipe2(os.O_CLOEXEC))
                for fd in pipes[-1]:
                    undo.callback(os.close, fd)
            undo.pop_all()
        self.stack_fd, self.stdout_fd, self.stderr_fd = self.streams = tuple(reader for reader, _ in pipes)
        for reader in self.streams:
            os.set_blocking(reader, False)
        self.theirs = (page, self.pipe.theirs, *(writer for _, writer in pipes))

    def hand_over(self) -> None:
        """The isolate's ends are with the keeper now."""
        for fd in self.theirs:
            os.close(fd)
        self.theirs = ()

    def leave_room(self) -> None:
        """Raises OSError, and takes the isolate down, where it would use up the last descriptors: its boot needs some for a moment, and so
        do looks into /proc, a shared host, and the program itself."""
        taken: list[int] = []
        try:
            for _ in range(ROOM):
                taken.append(os.dup(self.stack_fd))
        except OSError:
            self.close()
            raise
        finally:
            for fd in taken:
                os.close(fd)

    # -- a call --------------------------------------------------------------------------------------------------------------------

    def caller_of(self, number: int) -> Caller | None:
        """Whose call has this number, if it is here."""
        return self.call.caller if self.call is not None and number == self.call_number else None

    @property
    def title(self) -> str:
        """Of its call; empty where it has none."""
        return self.call.job.title if self.call is not None else ""

    def beat(self, number: int, now: float) -> float | None:
        """The handler of this call is alive. When its limit is reached now, if that has moved."""
        return self.deadlines.kill_at if self.deadlines is not None and self.deadlines.beat(now) else None

    def define(self, entry: EntrypointRef) -> bytes:
        """The definition of the entrypoint, empty where it is known here. Raises whatever user code raises: to pickle is to call it."""
        if entry.number in self.known:
            return b""
        definition = entry.definition(self.ready)
        self.known.add(entry.number)
        return definition

    def assign(self, call: Call, number: int, deadlines: Deadlines) -> None:
        self.life.assigned()
        self.call, self.call_number, self.deadlines = call, number, deadlines
        self.calls += 1
        self.soft_stack = ""
        if self._dump_due:
            self.forget_stack()  # it came too late for the call before
        call.isolate = self.number
        self.capture.reset()

    def release(self) -> Call:
        """The call has ended here, or goes elsewhere."""
        assert self.call is not None
        call, self.call, self.deadlines = self.call, None, None
        self.last_look, self._force_at, self.nudge_at = None, inf, inf
        call.isolate = None
        return call

    def worn_out(self, max_calls: int | None, max_memory: int | None) -> Cause | None:
        """Whether it should be replaced after this call."""
        if max_calls is not None and self.calls >= max_calls:
            return Cause.MAX_CALLS
        if max_memory is not None and self.view.resident()[0] > max_memory:
            return Cause.MAX_MEMORY
        return None

    def alarm(self) -> float:
        """When there is something to do for it, monotonic."""
        if self.died_at:
            return self.press_at
        at = min(self.stack_due, self.kill_at, self.leave_by, self.boot_deadline, self._force_at, self.nudge_at, self.asked_until)
        if self.signalled_at:
            return at if self.set_aside else min(at, self.signalled_at + STUCK_AFTER)
        if self.last_look is not None:
            at = min(at, self.last_look[1])
        return at if self.deadlines is None else min(at, self.deadlines.next_at)

    # -- what it prints ------------------------------------------------------------------------------------------------------------

    def read_output(self, fd: int) -> list[Line]:
        """What one descriptor has for us, bounded in bytes and lines; at least what a pipe holds."""
        stream = STDOUT if fd == self.stdout_fd else STDERR
        blocks: list[Line] = []
        for _ in range(TURN // CHUNK):
            data = _read(fd)
            if data is None:
                self.ended_streams.add(fd)
                break
            if data:
                blocks += self.capture.feed(stream, data)
            if len(data) < CHUNK or len(blocks) > TURN_BLOCKS:
                break
        return blocks

    # -- stacks --------------------------------------------------------------------------------------------------------------------

    def request_stack(self, now: float) -> None:
        """What came before counts until a new one is there."""
        self._request(STACK_SIGNAL, now)

    def raise_soft(self, now: float) -> None:
        """The same, and `SoftTimeLimitExceeded` in the handler behind it."""
        self._request(RAISE_SIGNAL, now)
        self.nudge_at, self._nudge_pause = now + NUDGE, NUDGE

    def _request(self, number: int, now: float) -> None:
        self._dump_due, self._requested, self._answered = True, number, False
        self._force_at, self._force_after = now + FORCE_AFTER, FORCE_AFTER
        self._signal(number)

    def force_stack(self, now: float) -> None:
        """Take the stack of a process that was asked for it and runs no Python (`child.setup`). One that has not even taken the signal has
        had no CPU, and is left to answer."""
        if now < self._force_at:
            return
        self._force_at = inf
        self.read_stack()
        if self._answered:
            return
        if process_tree.is_pending(self.pid, self._requested):
            self._force_after *= 2
            self._force_at = now + self._force_after
        else:
            self._signal(FORCED_STACK_SIGNAL)

    def nudge(self, now: float) -> None:
        """Ask again for the exception of the soft limit, until the call ends: a signal is lost where it comes between a look for signals
        and the system call that blocks, or before the process has read the call. Once raised it is not raised again."""
        if now >= self.nudge_at:
            self._nudge_pause *= NUDGE_FACTOR
            self.nudge_at = now + self._nudge_pause
            self._signal(NUDGE_SIGNAL)

    def _signal(self, number: int) -> None:
        if process_tree.send(self.pidfd, number) is process_tree.SignalResult.REFUSED and self.keeper is not None:
            self.keeper.forward(self.number, number)

    def may_dump(self) -> bool:
        """Whether its main thread will write its stack as soon as it has a CPU: it runs, and neither blocks nor ignores the signal."""
        return process_tree.state(self.pid) in ("R", "S") and process_tree.takes(self.pid, STACK_SIGNAL)

    def forget_stack(self) -> None:
        self.read_stack()
        self._dump, self._dump_due = "", False
        self._force_at = inf

    def read_stack(self) -> bool:
        """Take in what there is of a dump, bounded; True if it may be complete."""
        if data := _read(self.stack_fd):
            self._answered = True
            self._dump = (self._dump + data.decode(errors="replace"))[-CHUNK:]
        if data is None:
            self.ended_streams.add(self.stack_fd)
        return stacks.complete(self._dump)

    @property
    def awaits_stack(self) -> bool:
        """Whether somebody waits for a dump that is on its way."""
        return self.soft_limit is not None or self.last_look is not None or bool(self.asking)

    def take_soft_notice(self) -> LimitNotice | None:
        """The report of the soft limit, with the stack as far as it has come; None if there is none to make."""
        if self.soft_limit is None or self.call is None:
            return None
        (limit, elapsed), self.soft_limit, self.stack_due = self.soft_limit, None, inf
        self.soft_stack = self.take_stack()
        return LimitNotice(limit, elapsed, self.soft_stack, level="soft", title=self.title)

    def ask_stack(self, answer: Callable[[str], None], until: float, now: float) -> bool:
        """For somebody who looks: `answers` has it, at the latest `until` then. What a limit waits for serves as well. False: no call runs
        here."""
        if self.life.state is not State.BUSY or self.died_at:
            return False
        if not self.awaits_stack:
            self.forget_stack()
            self.request_stack(now)
        self.asking.append(answer)
        self.asked_until = until
        return True

    def answers(self) -> tuple[list[Callable[[str], None]], str]:
        """Who asked, and the stack as far as it has come; it stays there for a limit."""
        self.read_stack()
        asking, self.asking, self.asked_until = self.asking, [], inf
        return asking, stacks.readable(self._dump) or self.soft_stack

    def take_stack(self) -> str:
        self.read_stack()
        dumps, self._dump = self._dump, ""
        return stacks.readable(dumps)

    def last_stack(self) -> str:
        """Where the handler was at its end; on a machine too busy for the signal to get through in time, where it was at its soft limit."""
        found = self.take_stack()
        if found or not self.soft_stack:
            return found
        return f"At the soft limit, since none came at the hard one. {self.soft_stack}"

    # -- the end -------------------------------------------------------------------------------------------------------------------

    @property
    def may_leave(self) -> bool:
        """Whether nothing runs in it, so that it can end as any program does."""
        return self.booted and not self.life.working

    def dismiss(self, now: float) -> None:
        """The end of its pipe: it leaves by itself."""
        self.leave_by = now + LEAVE_WITHIN
        self.pipe.end()

    def begin_kill(self, now: float, keeper: KeeperClient) -> None:
        self.leave_by = inf
        self.signalled_at = now
        if self.pidfd < 0:  # never adopted (`keeper_client`): it leaves by itself, or with the keeper
            return
        if process_tree.send(self.pidfd, 0) is process_tree.SignalResult.REFUSED:
            self.kill = _kill_by_keeper(keeper, self.number)
        else:
            self.kill = process_tree.kill_tree(self.pid, self.pidfd, self.title)
        self.advance_kill(now)
        with suppress(OSError):  # with CAP_SYS_NICE a victim on a full machine gets a CPU to die on 10 ms sooner
            os.sched_setscheduler(self.pid, os.SCHED_RR, os.sched_param(1))

    def advance_kill(self, now: float) -> None:
        if self.kill is None:
            return
        try:
            self.kill_at = now + next(self.kill)
        except StopIteration as done:
            self.killed, self.kill, self.kill_at = done.value, None, inf

    def exited(self, now: float) -> None:
        """Its process has ended; the keeper, which sweeps behind it, has to report that."""
        self.died_at = now
        if self.keeper is not None:
            self.press_at, self._turns = now + WAKE, self.keeper.table.turns

    def press_keeper(self, now: float) -> None:
        """Nobody has reported the exit: see that the keeper goes on (`keeper_watchdog`)."""
        keeper = self.keeper
        if keeper is None or now < self.press_at:
            return
        turns = keeper.table.turns
        at_work = keeper.has_message() or turns != self._turns
        match press(at_work=at_work, woken=self._pressed, state=process_tree.state(keeper.pid), since=now - self.died_at):
            case Press.WAIT:
                self._turns, self._pressed, self.press_at = turns, False, now + WAKE
            case Press.WAKE:
                self._pressed, self.press_at = True, now + KILL
                process_tree.send(keeper.pidfd, signal.SIGCONT)
            case Press.PATIENCE:
                self.press_at = now + WAKE
            case Press.KILL:
                self.press_at = inf
                process_tree.send(keeper.pidfd, signal.SIGKILL)

    def stuck(self) -> Stuck:
        """What is to be said of a process that was killed and does not die."""
        why = why_alive(self.pid, process_tree.send(self.pidfd, 0) is process_tree.SignalResult.REFUSED)
        return Stuck(self.number, self.pid, process_tree.title(self.pid), why)

    def stderr(self) -> str:
        """The last lines."""
        return "\n".join(self.capture.tail)

    def close(self) -> None:
        self.hand_over()
        self.page.close()
        self.pipe.close()
        for fd in (*self.streams, self.pidfd):
            if fd >= 0:
                os.close(fd)


def _kill_by_keeper(keeper: KeeperClient, number: int) -> process_tree.Kill:
    """For an isolate that this process may not kill: its program has given up rights that the isolate has, and the keeper too."""
    while not keeper.kill(number):
        yield KILL_AGAIN
    return ()


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _read(fd: int) -> bytes | None:
    """What is there, empty if nothing is; None at the end."""
    try:
        return os.read(fd, CHUNK) or None
    except BlockingIOError:
        return b""
