"""Takeover of a dead worker: others on its machine notice that all its processes are gone, and take its leases at once.

    record of a neighbour ── all its processes gone? ── still gone, a quarter of a second later? ──> Recoverer: its leases, then its record
                                  └─ one lives, or nobody can say ──> nothing: its leases run out by themselves

Rules
 1. A worker lives as long as one of its processes does: by command the launcher and the core, embedded the program and the keeper. A
    launcher restarts its core, which takes its predecessor's leases by itself; a keeper that is left alone is still killing isolates.
 2. Only records of the same boot, pid namespace and time namespace are judged (`liveness`); those of older versions name none.
 3. Two looks, because isolates of a core and keeper that were killed in one instant are killed by the kernel in that same instant, but need
    some milliseconds to be dead: nothing begins again before.
 4. The first look comes before this worker's own first beat, which may overwrite the record of a predecessor of the same id.

Not promised: that two running copies of one machine (a snapshot that was resumed twice) are distinguished. They look the same from inside;
the fence still keeps the one that lost its lease from settling.
"""

from __future__ import annotations

from stem_iso.brokers.base import Broker, WorkerInfo
from stem_iso.worker.liveness import has_exited
from stem_iso.worker.maintenance import Recoverer
from stem_iso.worker.options import WorkerOptions

POLL_EVERY, CONFIRM = 1.0, 0.25  # seconds: noticed, confirmed and taken within two


class Takeover:
    """A chore. Owned by the consumer thread."""

    def __init__(self, options: WorkerOptions, machine: str, recoverer: Recoverer) -> None:
        self._boot, self._predecessors = options.boot, frozenset(options.origin.predecessors)
        self._machine, self._recoverer = machine, recoverer
        self._suspects: dict[str, tuple[WorkerInfo, float]] = {}  # by boot; since when it has been gone
        self._taken: set[str] = set()  # boots that were handed on, while their records are still there
        self.due = 0.0

    @property
    def pending(self) -> bool:
        """Whether tasks of a worker that is gone, as it seems, are still to be taken."""
        return bool(self._suspects) or self._recoverer.pending

    def run(self, broker: Broker, now: float) -> None:
        if not self._machine:
            self.due = float("inf")
            return
        found = broker.neighbours(self._machine)
        self._taken &= {each.boot for each in found}
        for each in found:
            if each.boot != self._boot and each.boot not in self._taken:
                self._suspects.setdefault(each.boot, (each, now))
        for boot, (dead, since) in list(self._suspects.items()):
            if not self._is_dead(dead):
                del self._suspects[boot]
            elif now >= since + CONFIRM:
                del self._suspects[boot]
                self._taken.add(boot)
                self._recoverer.take_over(dead)
        self.due = now + (CONFIRM if self._suspects else POLL_EVERY)

    def _is_dead(self, worker: WorkerInfo) -> bool:
        """Predecessors are dead without a look: our launcher killed what was left of them before it started us."""
        return worker.boot in self._predecessors or (bool(worker.processes) and all(has_exited(*each) for each in worker.processes))
