"""An isolate is wanted: descriptors and a seat, the order to the keeper, and the word by which we adopt what it started.

Spawn ──> Isolate, seat ── START ──> keeper ── STARTED (pid, pidfd) ──> ADOPT ──> it boots
             └─ no descriptor, no memory, no keeper: a boot that failed
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import msgspec

from stem_iso.isolate import messages, wire
from stem_iso.isolate.handle import Isolate
from stem_iso.isolate.keeper import SEATS
from stem_iso.isolate.lifecycle import State
from stem_iso.isolate.link import KeeperLost

if TYPE_CHECKING:
    from stem_iso.isolate.crew import Crew


class Births:
    """Used under the engine's lock. Owns which seats are free."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._adopt = wire.frame(wire.ADOPT, 0, msgspec.msgpack.encode(crew.boot))
        self._seats = list(range(SEATS))

    def spawn(self, number: int) -> None:
        crew = self._crew
        try:
            isolate = Isolate(number, self._seats[-1], monotonic() + crew.boot.time_limit)
        except OSError as error:  # no descriptor, no memory
            crew.exits.last_broken = f"{type(error).__name__}: {error}"
            crew.obey(crew.fleet.boot_failed(number, monotonic()))
            return
        self._seats.pop()
        crew.isolates[number] = isolate
        for fd in (*isolate.streams, isolate.pipe.link.fileno()):
            crew.register(fd, isolate)
        try:
            prelude = messages.prelude(crew.boot.secrets, max(1, crew.cores.most // crew.fleet.size))
            crew.link.start(number, isolate.seat, isolate.theirs, prelude)
        except KeeperLost:
            return  # the engine sees the end of the link, and then all isolates go
        except OSError as error:  # no memory, or a stopped keeper whose queue is full
            crew.exits.not_started(isolate, f"{type(error).__name__}: {error}")
        else:
            isolate.hand_over()
            crew.exits.spawning()
            crew.clocks.arm(isolate.boot_deadline)

    def started(self, isolate: Isolate, pid: int, pidfd: int) -> None:
        """The keeper's word. It runs no user code before ours."""
        crew = self._crew
        isolate.pid, isolate.pidfd = pid, pidfd
        crew.register(pidfd, isolate)
        crew.push(isolate, self._adopt)
        crew.notice(isolate, "spawned")
        if isolate.life.state is State.DYING:
            crew.begin_kill(isolate)

    def give_back(self, seat: int) -> None:
        self._seats.append(seat)
