"""The keeper: the small process that is the isolates' parent, and that enforces when the core cannot.

    core ⇄ SEQPACKET ⇄ keeper ── loky ──> isolates          one thread, one loop, no user code
                          └ reads the seat rows, kills trees, sweeps orphans

Rules
 1. It is parent and subreaper of every isolate, so that whatever an isolate leaves behind falls to it. A child of it that is no isolate and
    not the core is an orphan, and is killed. (A watcher beside the isolates would not do: daemons fall past it to init.)
 2. It sleeps to the earliest limit in the table, 30 ms past it, and says so in `armed`; a core that sends an earlier one wakes it. Verdict,
    fence, second look, kill: see `seat`.
 3. On an isolate's exit: sweep its orphans, report, then reap. Reaping first would make the report wait for it (1 to 5 ms).
 4. When the core ends, all trees die. What comes then is its owner's business: the embedded keeper leaves, the launcher starts a new core.
 5. Signals that the program ignores or blocks are nothing to it (with SIGCHLD ignored it could not tell how an isolate ended).
 6. It never sends to a pid, only to pidfds.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any

from stem_iso.isolate import messages, seat, tree
from stem_iso.isolate.interpreter import Program
from stem_iso.isolate.linux import WALL, become_subreaper, forget_inherited_signals, poll_timeout, standard_streams
from stem_iso.isolate.messages import EXITED, FAILED, HELLO, START, STARTED
from stem_iso.isolate.trackers import Trackers

MOST_NAMED = 256  # of the killed, in a report: a message has an end
SEATS = 1024  # rows in the table: isolates alive at once, dying ones included


class Kept:
    """An isolate as its parent knows it."""

    __slots__ = ("died_at", "killed", "number", "page", "pid", "pidfd", "seat", "signalled_at")

    def __init__(self, number: int, seat: int, pid: int, page: seat.Page) -> None:
        self.number, self.seat, self.pid, self.page = number, seat, pid, page
        self.pidfd = os.pidfd_open(pid)
        self.signalled_at = self.died_at = 0.0
        self.killed: list[tuple[int, str]] = []


class Keeper:
    """Serves one core. Owns the isolates' parenthood, the table and the lifeline; `step` is one turn of its loop."""

    def __init__(self, link: socket.socket, core: int | None = None) -> None:
        self.link = link
        self._core = core
        self._isolates: dict[int, Kept] = {}  # by pidfd
        self._unreaped: list[Kept] = []  # exited, the sweep behind them still going on
        self._kills: list[tuple[float, tree.Kill, Callable[[tree.Killed], None]]] = []
        table = os.memfd_create("stem_iso-table", os.MFD_CLOEXEC)
        os.ftruncate(table, seat.table_size(SEATS))
        self._table = seat.Table(table, SEATS)
        self._table.armed = inf
        # Nobody writes to it. When the last holder of the write end is gone, the kernel kills each isolate's group (child.lifeline).
        self._lifeline, writer = os.pipe2(os.O_CLOEXEC)
        self._writer = writer
        self._poll = select.poll()
        self._trackers = Trackers(self._poll, self._lifeline)
        self._poll.register(link, select.POLLIN)
        messages.send(link, HELLO, os.getpid(), fds=(table, writer))
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
        wake = min(until, self._look_at_rows())
        if self._kills:
            wake = min(wake, min(at for at, _, _ in self._kills))
        others: list[int] = []
        for fd, flags in self._poll.poll(poll_timeout(wake - monotonic())):
            if fd in self._isolates:
                self._exited(self._isolates.pop(fd))
            elif fd in self._trackers:
                self._trackers.event(fd, flags)
            elif fd == self.link.fileno():
                if not self._listen():
                    others.append(fd)
            else:
                others.append(fd)
        self._advance_kills()
        return others

    def kill_all(self) -> None:
        """Every tree, and every orphan, dead when this returns (but for what is in uninterruptible sleep: bounded)."""
        for kept in self._isolates.values():
            self._kill(kept)
        deadline = monotonic() + 2.0
        while (self._isolates or self._kills) and monotonic() < deadline:
            for fd, _ in self._poll.poll(1):
                if fd in self._isolates:
                    self._exited(self._isolates.pop(fd))
            self._advance_kills()
        tree.run(tree.kill_descendants(os.getpid(), self._kin))
        self._trackers.finish(within=2.0)
        tree.reap(pid for pid in tree.children(os.getpid()) if pid not in self._kin())

    def close(self) -> None:
        """Let go of all descriptors; the isolates must be dead."""
        for kept in self._isolates.values():
            os.close(kept.pidfd)
        self._trackers.close()
        os.close(self._lifeline)
        os.close(self._writer)
        self.link.close()

    # -- the core's wishes ---------------------------------------------------------------------------------------------------------

    def _listen(self) -> bool:
        message = messages.receive(self.link)
        if message is None:
            self._poll.unregister(self.link)
            return False
        (kind, *fields), fds = message
        if kind == START:
            self._start(fields[0], fields[1], fds)
        else:
            self.heard(kind, fields)
        return True

    def heard(self, kind: str, fields: list[Any]) -> None:
        """A message that is not about isolates; a launcher listens to GOODBYE. WAKE needs nothing but the turn it causes."""

    def _start(self, number: int, seat_number: int, fds: list[int]) -> None:
        from stem_iso.isolate import process  # loky costs 50 ms: the core has its HELLO before

        own: list[int] = []
        try:
            prelude, page_fd, *ends = fds  # ValueError: there was no descriptor free for some
            own.append(tracker := self._trackers.pipe())
            self._table.clear(seat_number)
            told = messages.read_prelude(prelude)
            given, program = process.Fds(page_fd, *ends, self._lifeline, tracker), Program(*told["program"])
            pid = process.start(given, program, flags=told["flags"], own_path=told["own_path"], cwd=told["cwd"], env=told["env"])
            kept = Kept(number, seat_number, pid, seat.Page(page_fd))
        except Exception as error:  # what cannot be started must not cost those that run
            messages.send(self.link, FAILED, number, f"{type(error).__name__}: {error}")
        else:
            self._isolates[kept.pidfd] = kept
            self._poll.register(kept.pidfd, select.POLLIN)
            messages.send(self.link, STARTED, number, pid, fds=(kept.pidfd,))
        finally:
            for fd in (*fds, *own):
                os.close(fd)

    # -- limits --------------------------------------------------------------------------------------------------------------------

    def _look_at_rows(self) -> float:
        earliest = self._judge_all()
        self._table.armed = earliest
        seat.fence()
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
            row = self._table.look(kept.seat, kept.page)
            match seat.judge(row, now):
                case seat.Enforce(call):
                    self._enforce(kept, row, call)
                case seat.LookAgain(at):
                    earliest = min(earliest, at)
        return earliest

    def _enforce(self, kept: Kept, row: seat.Row, call: int) -> None:
        self._table.set_verdict(kept.seat, seat.pack_verdict(call, seat.LIMIT))
        seat.fence()
        if seat.stands(row, self._table.look(kept.seat, kept.page)):
            self._kill(kept)
        else:
            self._table.set_verdict(kept.seat, 0)

    # -- deaths --------------------------------------------------------------------------------------------------------------------

    def _kill(self, kept: Kept) -> None:
        if kept.signalled_at:
            return
        kept.signalled_at = monotonic()
        self._kills.append((0.0, tree.kill_tree(kept.pid, kept.pidfd), kept.killed.extend))
        self._advance_kills()

    def _advance_kills(self) -> None:
        now = monotonic()
        running, self._kills = self._kills, []
        for at, kill, then in running:
            if at > now:
                self._kills.append((at, kill, then))
                continue
            try:
                pause = next(kill)
            except StopIteration as done:
                then(done.value)
            else:
                self._kills.append((monotonic() + pause, kill, then))

    def _exited(self, kept: Kept) -> None:
        kept.died_at = monotonic()
        self._poll.unregister(kept.pidfd)
        self._unreaped.append(kept)
        sweep = tree.kill_descendants(os.getpid(), self._kin)
        self._kills.append((0.0, sweep, lambda killed: self._report(kept, killed)))
        self._advance_kills()

    def _report(self, kept: Kept, orphans: tree.Killed) -> None:
        end = os.waitid(os.P_PIDFD, kept.pidfd, os.WEXITED | os.WNOWAIT | WALL)
        code, status = (end.si_code, end.si_status) if end else (os.CLD_EXITED, 0)
        killed = [(pid, title[:80]) for pid, title in (*kept.killed, *orphans)][:MOST_NAMED]
        messages.send(self.link, EXITED, kept.number, code, status, killed, kept.signalled_at, kept.died_at)
        os.waitid(os.P_PIDFD, kept.pidfd, os.WEXITED | WALL)
        os.close(kept.pidfd)
        self._unreaped.remove(kept)
        tree.reap(pid for pid, _ in orphans)

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
    from stem_iso.isolate import process

    process.without_trackers()
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
