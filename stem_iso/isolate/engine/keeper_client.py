"""The client of the keeper: asks for isolates, takes in the keeper's reports, and kills all trees when the keeper is lost.

free row ──> launch ── START ──> keeper ── STARTED, pidfd ──> ADOPT, the isolate's first frame
                                        ├─ FAILED: there never was a process
                                        └─ EXITED ──> `endings`
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from stem_iso.isolate import wire
from stem_iso.isolate.engine.endings import Exit, earliest
from stem_iso.isolate.engine.isolate import STUCK_AFTER, Isolate
from stem_iso.isolate.engine.keeper_connection import KeeperLost
from stem_iso.isolate.engine.lifecycle import Cause, State
from stem_iso.isolate.engine.memory import MemoryReader
from stem_iso.isolate.interfaces import Boot, IsolateNotice
from stem_iso.isolate.keeper import process_tree, protocol
from stem_iso.isolate.keeper.keeper import SEATS
from stem_iso.isolate.keeper.protocol import EXITED, FAILED, STARTED, STUCK

if TYPE_CHECKING:
    from stem_iso.isolate.engine.isolates import Isolates


NO_ARGV = (TypeError, ValueError, AttributeError, RecursionError)  # what comes of a sys.argv that is no list of texts
ROOM = 24  # descriptors that are left free by the last isolate


class KeeperClient:
    """Used under the engine's lock."""

    def __init__(self, isolates: Isolates) -> None:
        self._isolates = isolates
        self._seats = list(range(SEATS))

    @property
    def free_seat(self) -> int:
        """A row in the table; `launch` takes it."""
        return self._seats[-1]

    def give_back(self, seat: int) -> None:
        self._seats.append(seat)

    def spawn(self, number: int) -> None:
        isolates = self._isolates
        if isolates.fleet.closed:
            isolates.fleet.gone(number, monotonic())
            return
        try:
            isolate = Isolate(number, self.free_seat, monotonic() + isolates.boot.time_limit, isolates.boot.largest_frame)
            leave_room(isolate)
        except OSError as error:  # no descriptor, no memory
            isolates.exits.last_broken = f"{type(error).__name__}: {error}"
            if isolates.fleet.boot_failures == 0:  # said once, until a boot succeeds again
                isolates.no_process(isolates.exits.last_broken)
            isolates.obey(isolates.fleet.boot_failed(number, monotonic()))
        else:
            self.launch(isolate, isolates.boot)

    def launch(self, isolate: Isolate, boot: Boot) -> None:
        isolates = self._isolates
        self._seats.pop()
        isolates.by_number[isolate.number] = isolate
        isolate.adopt = wire.frame(wire.ADOPT, 0, msgspec.msgpack.encode(boot))
        for fd in (*isolate.streams, isolate.pipe.link.fileno()):
            isolates.register(fd, isolate)
        try:
            prelude = protocol.prelude(boot.secrets, max(1, isolates.cores.most // isolates.fleet.size))
            isolates.link.start(isolate.number, isolate.seat, isolate.theirs, prelude)
        except KeeperLost:
            return  # the engine sees the end of the link, and then all isolates go
        except (OSError, MemoryError, *NO_ARGV) as error:  # no descriptor, no memory, a stopped keeper whose queue is full
            isolates.exits.not_started(isolate, f"{type(error).__name__}: {error}")
        else:
            isolate.hand_over()
            isolates.exits.spawning()
            isolates.clocks.arm(isolate.boot_deadline)

    def heard(self, kind: str, fields: list[Any], fds: list[int]) -> bool:
        """A message of the keeper; False if it is not about isolates."""
        if kind == STUCK:
            self._stuck(*fields)
            return True
        if kind not in (STARTED, FAILED, EXITED):
            return False
        isolate = self._isolates.by_number[fields[0]]
        if kind == STARTED:
            self._started(isolate, fields[1], fields[2], fields[3], fds)
        elif kind == FAILED:
            self._isolates.exits.not_started(isolate, fields[1])
        else:
            code, status, killed, signalled, died = fields[1:]
            own = isolate.call.job.title if isolate.call else ""  # of a process that was dead when the keeper looked, nobody can read it
            every = _once((pid, title or (own if pid == isolate.pid else "")) for pid, title in (*isolate.killed, *killed))
            # Where this process was stopped, or its GIL held, the keeper acted and saw before it.
            times = earliest(isolate.signalled_at, signalled), earliest(isolate.died_at, died)
            self._isolates.exits.gone(isolate, Exit(code, status, every, *times))
        return True

    def _stuck(self, number: int, pid: int, title: str, why: str) -> None:
        self._isolates.emit(IsolateNotice("stuck", pid, why, title=title))
        isolate = self._isolates.by_number.get(number)
        if isolate is not None:
            self._isolates.set_aside(isolate)

    def lost(self) -> None:
        """Kill every tree by ourselves, now, and end what ran there. What does not die is waited for with its call unended, as ever."""
        self._pause(True)
        isolates = list(self._isolates.by_number.values())
        for isolate in isolates:
            if isolate.life.condemned(Cause.KEEPER_LOST):
                self._isolates.count_out(isolate)
        held = [isolate for isolate in isolates if isolate.pidfd >= 0]
        for isolate in held:
            process_tree.run(isolate.kill or process_tree.kill_tree(isolate.pid, isolate.pidfd))
            isolate.kill = None
        self._isolates.link.cut_lifeline()
        end = monotonic() + STUCK_AFTER
        for isolate in isolates:
            if isolate not in held or process_tree.has_exited(isolate.pidfd, max(0.0, end - monotonic())):
                self._isolates.exits.gone(isolate, Exit(died_at=monotonic()))
            else:
                isolate.unkept = True
                self._stuck(isolate.number, isolate.pid, process_tree.title(isolate.pid), isolate.why_alive())

    def replaced(self) -> None:
        """There is a new keeper, which `link` talks to."""
        self._pause(False)
        self._isolates.wake_up(monotonic())

    def _pause(self, paused: bool) -> None:
        self._isolates.fleet.paused = self._isolates.hosting.roster.paused = paused

    def _started(self, isolate: Isolate, pid: int, hides: bool, shown: int, fds: list[int]) -> None:
        """Its process is there: from now on it can be killed, and may run what it is sent."""
        isolates = self._isolates
        isolate.pid = pid
        if len(fds) != 1 + shown:
            for fd in fds:
                os.close(fd)
            # This process has no descriptor free: nobody could kill it, so it is not adopted, and leaves without user code.
            isolate.broken = "no descriptor was free for its process"
            with suppress(OSError):
                isolate.pipe.link.shutdown(socket.SHUT_WR)
            return
        isolate.pidfd, isolate.link = fds[0], isolates.link
        isolate.view, isolate.hidden = MemoryReader(pid, *fds[1:]), hides and not shown
        isolates.register(isolate.pidfd, isolate)
        isolates.push(isolate, isolate.adopt)
        isolates.notice(isolate, "spawned")
        if isolate.life.state is State.DYING:
            isolates.begin_kill(isolate)


def leave_room(isolate: Isolate) -> None:
    """Raises OSError, and takes the isolate down, where it would use up the last descriptors: booting it needs some for a moment, and so do
    looks into /proc, an inline host, and the program itself."""
    taken: list[int] = []
    try:
        for _ in range(ROOM):
            taken.append(os.dup(isolate.stack_fd))
    except OSError:
        isolate.close()
        raise
    finally:
        for fd in taken:
            os.close(fd)


def _once(killed: Iterable[tuple[int, str]]) -> tuple[tuple[int, str], ...]:
    """Each process once: where the core was slow, the keeper has killed the same ones beside it."""
    found: dict[int, str] = {}
    for pid, title in killed:
        found[pid] = found.get(pid) or title
    return tuple(found.items())
