"""Orphans: processes that fell to the keeper because what stood between it and them is gone. All of them are killed, and reaped.

    children of this process ── but its kin ──> pass: reap the dead · meet the new · kill them, and all below
                                                 └──> the exits whose orphans are all gone: these can be reported

Rules
 1. A pass reads all children, kills, and never waits. Passes follow each other quickly while somebody is dying, else some times a second:
    a process that switched its subreaper flag off, or cloned itself a parent, falls to the keeper long before any isolate ends.
 2. An exit is over when a pass that began after it found nobody new, and none alive of the orphans it owns.
 3. An orphan is owned by the isolate whose session it is in; one in a session of its own by the owners of that session's others, else by
    every exit that is still open. An exit is open until one pass brought nothing, and all that it owns is gone or will not die: so no
    exit waits for what was there before it, and one process that will not die holds up one exit.
 4. One that will not die (uninterruptible sleep) or is another user's is killed again at each pass, and named after `NAME_AFTER`.
 5. What is dead and not ours to reap yet, because somebody traces it, runs nothing: no exit waits for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic

from stem_iso.isolate.keeper import process_tree

PASS_EVERY = 0.25  # seconds between two passes while nobody is dying
NAME_AFTER = 0.5  # seconds until a process that was killed and does not die is named
LATE = 0.1  # of the time since somebody was met or died: until the next pass, while somebody is dying


@dataclass(slots=True)
class Orphan:
    """A child of this process that is not its own. `owners`: numbers of isolates whose exits wait for it."""

    pid: int
    since: float
    owners: set[int]
    session: int
    walk: process_tree.Walk = field(default_factory=process_tree.Walk)
    named: frozenset[int] | None = None  # the owners it had when it was named

    def stubborn(self, now: float) -> bool:
        return self.pid in self.walk.refused or now > self.since + process_tree.PATIENCE

    @property
    def title(self) -> str:
        return self.walk.killed.get(self.pid) or self.walk.refused.get(self.pid, "")


@dataclass(frozen=True, slots=True)
class Survivor:
    """A process that keeps its call from ending. `isolate`: 0 where nobody knows whose it is."""

    isolate: int
    pid: int
    title: str
    why: str


def why_alive(pid: int, refused: bool) -> str:
    """The reason, in words, why a process that was killed lives on."""
    if refused:
        return "it belongs to another user, and may not be killed"
    return "it was killed and does not die" + (" (uninterruptible sleep)" if process_tree.state(pid) == "D" else "")


class Orphans:
    """Used by the keeper's one thread. `kin` are children that are no orphans; `sessions` maps the pid of each isolate to its number."""

    def __init__(self, kin: Callable[[], set[int]], sessions: Callable[[], Mapping[int, int]]) -> None:
        self._kin, self._sessions = kin, sessions
        self._own = os.getpid()
        self._known: dict[int, Orphan] = {}
        self._open: set[int] = set()  # exits that unknown orphans may belong to
        self._killed: dict[int, list[tuple[int, str]]] = {}  # of exits not reported: what was killed and is gone
        self._changed_at = 0.0  # when somebody was met, or died
        self.quiet = True  # the last pass found nobody new, and all that live will not die

    def exited(self, number: int) -> None:
        self._open.add(number)
        self._killed[number] = []
        self._changed_at = monotonic()
        self.quiet = False

    def take(self, number: int) -> list[tuple[int, str]]:
        """An exit is reported: what was killed for it."""
        self._open.discard(number)
        return self._killed.pop(number, [])

    # -- a pass --------------------------------------------------------------------------------------------------------------------

    def sweep(self) -> Generator[float, None, set[int]]:
        """One pass. Yields seconds to sleep; returns the exits that wait for nobody any more."""
        waiting, moved = set(self._killed), set[int]()
        kin, own = self._kin(), self._own
        for step, pid in enumerate([pid for pid in process_tree.children(own) if pid not in kin], 1):
            if step % process_tree.SLICE == 0:
                yield 0.0
            orphan = self._known.get(pid) or self._meet(pid)
            if process_tree.reaped(pid):
                moved |= self._forget(orphan)
                continue
            if orphan.stubborn(monotonic()):
                self._again(orphan)
            if (yield from orphan.walk.over(own, [pid])):
                moved |= orphan.owners
        return self._conclude(waiting, moved)

    def _forget(self, orphan: Orphan) -> set[int]:
        """It is gone; the exits that must look once more, because what it left may have fallen to us meanwhile."""
        del self._known[orphan.pid]
        for number in orphan.owners & self._killed.keys():
            self._killed[number] += orphan.walk.killed.items()
        return orphan.owners

    def _meet(self, pid: int) -> Orphan:
        try:
            session = os.getsid(pid)
        except OSError:
            session = 0
        self._known[pid] = orphan = Orphan(pid, monotonic(), self._owners(session), session)
        return orphan

    def _owners(self, session: int) -> set[int]:
        isolate = self._sessions().get(session)
        if isolate is not None:
            return {isolate}
        known = list(self._known.values())
        kindred = set().union(*(orphan.owners for orphan in known if orphan.session == session))
        return kindred or set(self._open) or set().union(*(orphan.owners for orphan in known))

    def _again(self, orphan: Orphan) -> None:
        """A process that stood in a tracer's stop may die of the second SIGKILL, and one that has changed its user is ours now."""
        sent, name = process_tree.kill_child(orphan.pid, self._own)
        if sent is process_tree.SignalResult.DELIVERED and orphan.walk.refused.pop(orphan.pid, None) is not None:
            orphan.walk.killed[orphan.pid] = name

    def _conclude(self, waiting: set[int], moved: set[int]) -> set[int]:
        now = monotonic()
        if moved:
            self._changed_at = now
        living = [orphan for orphan in self._known.values() if not process_tree.is_dead(orphan.pid)]
        held = set().union(*(orphan.owners for orphan in living))
        dying = set().union(*(orphan.owners for orphan in living if not orphan.stubborn(now)))
        self._open -= waiting - moved - dying
        self.quiet = not moved and not self._open and all(orphan.stubborn(now) for orphan in living)
        return waiting - moved - held

    def pause(self, now: float) -> float:
        """Seconds until the next pass: short while somebody dies, and the longer the longer that takes."""
        if not self._known and not self._killed:
            return PASS_EVERY
        pause = min(PASS_EVERY, max(process_tree.PAUSE, (now - self._changed_at) * LATE))
        unnamed = [orphan.since + NAME_AFTER - now for orphan in self._known.values() if orphan.named is None]
        return max(process_tree.PAUSE, min(pause, *unnamed)) if unnamed else pause

    @property
    def empty(self) -> bool:
        return not self._known

    # -- those that will not die -----------------------------------------------------------------------------------------------------

    def survivors(self, now: float) -> Iterator[Survivor]:
        """Those to be named now: once, and again where an exit has come to wait for them."""
        for orphan in self._known.values():
            waits = frozenset(orphan.owners & self._killed.keys())
            if now < orphan.since + NAME_AFTER or orphan.named == waits or process_tree.is_dead(orphan.pid):
                continue
            orphan.named = waits
            why = why_alive(orphan.pid, orphan.pid in orphan.walk.refused)
            for number in waits or (0,):
                yield Survivor(number, orphan.pid, orphan.title, why)
