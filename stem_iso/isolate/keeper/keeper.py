"""The keeper: the small process that is the isolates' parent, and that enforces when the core cannot.

    core ⇄ SEQPACKET ⇄ keeper ── loky ──> isolates          one thread, one loop, no user code
                          └ reads the shared rows, kills trees, sweeps orphans

Rules
 1. It is parent and subreaper of every isolate, so that whatever an isolate leaves behind falls to it. A child of it that is no isolate and
    not the core is an orphan, and is killed (`orphans`), at each exit and some times a second while there are isolates. (A watcher beside
    the isolates would not do: daemons fall past it to init.)
 2. It sleeps to the earliest limit in the table, 30 ms past it, and says so in `armed`; a core that sends an earlier one wakes it. Verdict,
    fence, second look, kill: see `shared_row`.
 3. On an isolate's exit: sweep its orphans, report, then reap. Reaping first would make the report wait for it (1 to 5 ms). An isolate
    that a debugger holds, or an orphan that will not die, holds up that one report, and is named (STUCK).
 4. When the core ends, all trees die. What comes then is its owner's business: the embedded keeper leaves, the launcher starts a new core.
 5. Signals that the program ignores or blocks are nothing to it (with SIGCHLD ignored it could not tell how an isolate ended).
 6. It never sends to a pid, only to pidfds.
 7. It waits for nothing but its next turn: not for a death, and not for a core that is stopped and does not read (`_unsent`).
 8. It kills and signals in the core's place where the core may not, because its program has given up rights that the isolates have.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Generator
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any

from stem_iso.isolate import shared_row
from stem_iso.isolate.engine import memory
from stem_iso.isolate.interpreter import Program
from stem_iso.isolate.keeper import process_tree, protocol
from stem_iso.isolate.keeper.orphans import NAME_AFTER, Orphans, Survivor
from stem_iso.isolate.keeper.protocol import EXITED, FAILED, FORWARD, HELLO, KILL, START, STARTED, STUCK
from stem_iso.isolate.keeper.tracker_table import Trackers
from stem_iso.isolate.linux import WALL, become_subreaper, forget_inherited_signals, poll_timeout, proc_hides, standard_streams

MOST_NAMED = 256  # of the killed, in a report: a message has an end
LAST_WAIT = 2.0  # seconds for the last deaths
SEATS = 1024  # rows in the table: isolates alive at once, dying ones included


class Child:
    """An isolate as its parent knows it."""

    __slots__ = ("died_at", "killed", "named", "number", "page", "pid", "pidfd", "seat", "signalled_at", "swept")

    def __init__(self, number: int, seat: int, pid: int, page: shared_row.Page) -> None:
        self.number, self.seat, self.pid, self.page = number, seat, pid, page
        self.pidfd = os.pidfd_open(pid)
        self.signalled_at = self.died_at = 0.0
        self.swept = self.named = False
        self.killed: list[tuple[int, str]] = []


class Keeper:
    """Serves one core. Owns the isolates' parenthood, the table and the lifeline; `step` is one turn of its loop."""

    def __init__(self, link: socket.socket, core: int | None = None) -> None:
        self.link = link
        link.setblocking(False)
        self._unsent: deque[tuple[str, tuple[Any, ...], tuple[int, ...]]] = deque()  # for which the core's queue had no room
        self._core_reads = True
        self._core = core
        self._isolates: dict[int, Child] = {}  # by pidfd
        self._unreaped: list[Child] = []  # exited and not reported
        self._orphans = Orphans(self._kin, self._sessions)
        self._sweep: Generator[float, None, set[int]] | None = None  # a pass that goes on
        self._sweep_at = 0.0
        self._kills: list[tuple[float, process_tree.Kill, Child]] = []
        table = os.memfd_create("stem_iso-table", os.MFD_CLOEXEC)
        os.ftruncate(table, shared_row.table_size(SEATS))
        self._table = shared_row.Table(table, SEATS)
        self._table.armed = inf
        # Nobody writes to it. When the last holder of the write end is gone, the kernel kills each isolate's group (child.lifeline).
        self._lifeline, writer = os.pipe2(os.O_CLOEXEC)
        self._writer = writer
        self._poll = select.poll()
        self._trackers = Trackers(self._poll, self._lifeline)
        self._poll.register(link, select.POLLIN)
        protocol.send(link, HELLO, os.getpid(), fds=(table, writer))
        os.close(table)

    def register(self, fd: int) -> None:
        """Another descriptor that ends the loop's sleep; `step` returns it when it is readable."""
        self._poll.register(fd, select.POLLIN)

    # -- one turn ------------------------------------------------------------------------------------------------------------------

    def step(self, until: float = inf) -> list[int]:
        """Sleep until there is something to do, or until `until` (monotonic), and do it.

        Returns the registered descriptors that are readable, and the link's own when the core has closed it.
        """
        self._table.count_turn()
        wake = min(until, self._check_rows())
        if self._kills:
            wake = min(wake, min(at for at, _, _ in self._kills))
        if self._isolates or self._unreaped or not self._orphans.empty:
            wake = min(wake, self._sweep_at)
        others: list[int] = []
        for fd, flags in self._poll.poll(poll_timeout(wake - monotonic())):
            if fd in self._isolates:
                self._exited(self._isolates.pop(fd))
            elif fd in self._trackers:
                self._trackers.event(fd, flags)
            elif fd == self.link.fileno():
                if flags & select.POLLOUT:
                    self._send_rest()
                if flags & ~select.POLLOUT and not self._listen():
                    others.append(fd)
            else:
                others.append(fd)
        self._advance_kills()
        self._advance_sweep()
        return others

    def kill_all(self) -> None:
        """Every tree, and every orphan, dead when this returns, but for what will not die."""
        for kept in self._isolates.values():
            self._kill(kept)
        self._sweep, self._sweep_at, self._orphans.quiet = None, 0.0, False
        deadline = monotonic() + LAST_WAIT
        while (self._isolates or self._kills or not self._orphans.quiet) and monotonic() < deadline:
            for fd, _ in self._poll.poll(1):
                if fd in self._isolates:
                    self._exited(self._isolates.pop(fd))
            self._advance_kills()
            self._advance_sweep()
        self._trackers.finish(within=LAST_WAIT)

    def close(self) -> None:
        """Let go of all descriptors; the isolates must be dead."""
        for kept in (*self._isolates.values(), *self._unreaped):
            os.close(kept.pidfd)
        self._trackers.close()
        self._drop_unsent()
        os.close(self._lifeline)
        os.close(self._writer)
        self.link.close()

    def send(self, kind: str, *fields: Any, fds: tuple[int, ...] = ()) -> None:
        """To the core, now or when it has room; nobody waits for a core that is stopped."""
        if not self._core_reads:
            return
        if not self._unsent:
            try:
                protocol.send(self.link, kind, *fields, fds=fds)
            except BlockingIOError:
                self._poll.modify(self.link, select.POLLIN | select.POLLOUT)
            else:
                return
        self._unsent.append((kind, fields, tuple(os.dup(fd) for fd in fds)))

    def _send_rest(self) -> None:
        with suppress(BlockingIOError):
            while self._unsent:
                kind, fields, fds = self._unsent[0]
                protocol.send(self.link, kind, *fields, fds=fds)
                self._unsent.popleft()
                for fd in fds:
                    os.close(fd)
            self._poll.modify(self.link, select.POLLIN)

    def _drop_unsent(self) -> None:
        while self._unsent:
            for fd in self._unsent.popleft()[2]:
                os.close(fd)

    # -- messages from the core ----------------------------------------------------------------------------------------------------

    def _listen(self) -> bool:
        try:
            message = protocol.receive(self.link)
        except BlockingIOError:
            return True
        if message is None:
            self._poll.unregister(self.link)
            self._core_reads = False
            self._drop_unsent()
            return False
        (kind, *fields), fds = message
        if kind == START:
            self._start(fields[0], fields[1], fds)
        elif kind in (KILL, FORWARD):
            for kept in [kept for kept in self._isolates.values() if kept.number == fields[0]]:
                if kind == KILL:
                    self._kill(kept)
                else:
                    process_tree.send(kept.pidfd, fields[1])
        else:
            self.on_message(kind, fields)
        return True

    def on_message(self, kind: str, fields: list[Any]) -> None:
        """A message that is not about isolates; a launcher overrides this for GOODBYE. WAKE needs nothing but the turn it causes."""

    def _start(self, number: int, seat_number: int, fds: list[int]) -> None:
        from stem_iso.isolate.keeper import spawn  # loky costs 50 ms: the core has its HELLO before

        own: list[int] = []
        try:
            prelude_fd, page_fd, *ends = fds  # ValueError: there was no descriptor free for some
            own.append(tracker := self._trackers.pipe())
            self._table.clear(seat_number)
            prelude = protocol.read_prelude(prelude_fd)
            given, program = spawn.Fds(page_fd, *ends, self._lifeline, tracker), Program(*prelude["program"])
            pid = spawn.start(given, program, flags=prelude["flags"], own_path=prelude["own_path"], cwd=prelude["cwd"], env=prelude["env"])
            kept = Child(number, seat_number, pid, shared_row.Page(page_fd))
        except (OSError, ValueError, MemoryError, ImportError) as error:  # no descriptor, process, folder or memory; no stem_iso any more
            self.send(FAILED, number, f"{type(error).__name__}: {error}")
        else:
            self.adopt(kept)
            hides = proc_hides()
            shown = memory.open_files(pid) if hides else ()
            own += shown
            self.send(STARTED, number, pid, hides, len(shown), fds=(kept.pidfd, *shown))
        finally:
            for fd in (*fds, *own):
                os.close(fd)

    def adopt(self, kept: Child) -> None:
        """A child of this process is an isolate: its limits hold, and its exit is reported."""
        self._isolates[kept.pidfd] = kept
        self._poll.register(kept.pidfd, select.POLLIN)

    # -- limits --------------------------------------------------------------------------------------------------------------------

    def _check_rows(self) -> float:
        earliest = self._judge_all()
        self._table.armed = earliest
        shared_row.fence()
        # A limit that was written between the look and `armed` found the old `armed`, and woke nobody.
        again = self._judge_all()
        if again < earliest:
            self._table.armed = again
        return min(earliest, again)

    def _judge_all(self) -> float:
        now, earliest = monotonic(), inf
        for kept in self._isolates.values():
            if kept.signalled_at:
                continue
            row = self._table.read(kept.seat, kept.page)
            match shared_row.judge(row, now):
                case shared_row.Enforce(call):
                    self._enforce(kept, row, call)
                case shared_row.CheckAgain(at):
                    earliest = min(earliest, at)
        return earliest

    def _enforce(self, kept: Child, row: shared_row.SharedRow, call: int) -> None:
        self._table.set_verdict(kept.seat, shared_row.pack_verdict(call, shared_row.LIMIT))
        shared_row.fence()
        if shared_row.stands(row, self._table.read(kept.seat, kept.page)):
            self._kill(kept)
        else:
            self._table.set_verdict(kept.seat, 0)

    # -- deaths --------------------------------------------------------------------------------------------------------------------

    def _kill(self, kept: Child) -> None:
        if kept.signalled_at:
            return
        kept.signalled_at = monotonic()
        self._kills.append((0.0, process_tree.kill_tree(kept.pid, kept.pidfd), kept))
        self._advance_kills()

    def _advance_kills(self) -> None:
        now = monotonic()
        running, self._kills = self._kills, []
        for at, kill, kept in running:
            if at > now:
                self._kills.append((at, kill, kept))
                continue
            try:
                pause = next(kill)
            except StopIteration as done:
                kept.killed.extend(done.value)
            else:
                self._kills.append((monotonic() + pause, kill, kept))

    def _exited(self, kept: Child) -> None:
        kept.died_at = monotonic()
        self._poll.unregister(kept.pidfd)
        self._unreaped.append(kept)
        self._orphans.exited(kept.number)
        self._sweep_at = 0.0
        self._advance_sweep()

    def _advance_sweep(self) -> None:
        now = monotonic()
        if now < self._sweep_at:
            return
        self._sweep = self._sweep or self._orphans.sweep()
        try:
            self._sweep_at = now + next(self._sweep)
            return
        except StopIteration as done:
            self._sweep = None
            over: set[int] = done.value
        for kept in self._unreaped[:]:
            kept.swept = kept.swept or kept.number in over
            if kept.swept:
                self._report(kept)
        now = monotonic()
        self._name_survivors(now)
        self._sweep_at = now + self._orphans.pause(now)

    def _report(self, kept: Child) -> None:
        """The exit, unless a tracer has not let go of it: nobody else is notified of that end until then."""
        try:
            end = os.waitid(os.P_PIDFD, kept.pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG | WALL)
        except ChildProcessError:  # reaped by the kernel
            code, status = os.CLD_EXITED, 0
        else:
            if end is None:
                return
            code, status = end.si_code, end.si_status
        killed = [(pid, title[:80]) for pid, title in (*kept.killed, *self._orphans.take(kept.number))][:MOST_NAMED]
        self.send(EXITED, kept.number, code, status, killed, kept.signalled_at, kept.died_at)
        with suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, kept.pidfd, os.WEXITED | os.WNOHANG | WALL)
        # A kill that was still on its way has nobody left: the sweep has seen to the descendants, and the descriptor will mean another.
        self._kills = [each for each in self._kills if each[2] is not kept]
        os.close(kept.pidfd)
        self._unreaped.remove(kept)

    def _name_survivors(self, now: float) -> None:
        found = list(self._orphans.survivors(now))
        for kept in self._unreaped:
            if kept.swept and not kept.named and now >= kept.died_at + NAME_AFTER:
                kept.named = True
                found.append(Survivor(kept.number, kept.pid, "", f"it is dead, and process {process_tree.tracer(kept.pid)} traces it"))
        for each in found:
            self.send(STUCK, each.isolate, each.pid, each.title[:80], each.why)

    def _sessions(self) -> dict[int, int]:
        """The numbers of isolates by pid, which is also the session that each has made."""
        return {kept.pid: kept.number for kept in (*self._isolates.values(), *self._unreaped)}

    def _kin(self) -> set[int]:
        """Children that are no orphans: the core, trackers, and isolates that live or wait to be reaped."""
        pids = {kept.pid for kept in (*self._isolates.values(), *self._unreaped)} | self._trackers.pids
        return pids if self._core is None else pids | {self._core}


def main(link_fd: int, core: int) -> None:
    """The embedded keeper: leaves with its core."""
    forget_inherited_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
    standard_streams()
    become_subreaper()
    try:
        core_fd = os.pidfd_open(core)
    except ProcessLookupError:
        return
    if os.getppid() != core:  # it died before we held it
        return
    link = socket.socket(fileno=link_fd)
    link.set_inheritable(False)
    keeper = Keeper(link)
    from stem_iso.isolate.keeper import spawn

    spawn.without_trackers()
    set_title("stem_iso: keeper")
    keeper.register(core_fd)
    while not keeper.step():
        pass
    keeper.kill_all()


def set_title(title: str) -> None:
    os.environ["SPT_NOENV"] = "1"
    from setproctitle import setproctitle

    setproctitle(title)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
