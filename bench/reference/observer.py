"""Observer: what becomes of the processes that a ledger names, by pidfd and /proc, without asking the system under test.

A process is dead when its pidfd is readable: all its threads have ended. It is a zombie as long as nobody has waited for it; one whose
parent is this process or init is not the system's fault and is reaped here. A pid that has been given to another process since is told by
its start time. The observer is the subreaper of all that it starts, so nothing gets away from `end_all`.

What is watched runs with real-time priority where the machine allows it: a busy machine then delays the systems, not the clock.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

LOOK = 0.002  # seconds between two looks at a ledger; a handler that ends itself waits fifty times as long before it does
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Ledger:
    """Lines of one ledger so far."""

    pid: int = 0
    start: float | None = None
    due: float | None = None  # of a handler that ends itself
    end: float | None = None  # of a handler that was ended inside a process that goes on
    children: dict[int, float] = field(default_factory=dict)


def parse(text: str) -> Ledger:
    """The last line may be half written."""
    found = Ledger()
    for line in text.splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        match line.split():
            case ["start", pid, at] if found.start is None:
                found.pid, found.start = int(pid), float(at)
            case ["due", at]:
                found.due = float(at)
            case ["end", pid, at] if found.end is None and int(pid) == found.pid:
                found.end = float(at)
            case ["child", pid, at]:
                found.children[int(pid)] = float(at)
    return found


def starts(text: str) -> int:
    """How often the handler was begun: more than once is a redelivery."""
    return sum(line.startswith("start ") and line.endswith("\n") for line in text.splitlines(keepends=True))


def look(path: Path) -> Ledger:
    return parse(path.read_text()) if path.exists() else Ledger()


class Watch:
    """One handler's process, from its first act to its death, or to the handler's own end in a process that goes on."""

    def __init__(self, path: Path, patience: float) -> None:
        self.path = path
        self.dead: float | None = None
        self._until = time.monotonic() + patience
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def ledger(self) -> Ledger:
        return look(self.path)

    def started(self) -> Ledger | None:
        """Waits for the first act; None if there was none in time."""
        while (ledger := self.ledger).start is None:
            if time.monotonic() > self._until:
                return None
            time.sleep(LOOK)
        return ledger

    def wait(self) -> float | None:
        self._thread.join()
        return self.dead

    def bound(self, until: float) -> None:
        """Look until then, and no longer."""
        self._until = until

    def _run(self) -> None:
        be_prompt()
        if (ledger := self.started()) is None:
            return
        try:
            fd = os.pidfd_open(ledger.pid)
        except ProcessLookupError:  # between two looks
            self.dead = time.monotonic()
            return
        try:
            while (now := time.monotonic()) < self._until:
                if select.select([fd], [], [], min(0.05, self._until - now))[0]:
                    self.dead = time.monotonic()
                    return
                if (end := self.ledger.end) is not None:  # it noted the instant, so a look now and then is exact
                    self.dead = end
                    return
        finally:
            os.close(fd)


def be_prompt() -> None:
    """This thread alone; what it starts is as others are."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))


def be_subreaper() -> None:
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


@dataclass(frozen=True)
class Stat:
    state: str
    parent: int
    started: float  # on CLOCK_BOOTTIME


def stat(pid: int) -> Stat | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Stat(fields[0], int(fields[1]), int(fields[19]) / _TICK)


@dataclass(frozen=True)
class Left:
    alive: tuple[int, ...]
    zombies: tuple[int, ...]


def left(ledger: Ledger) -> Left:
    """Who of a ledger is still there."""
    noted = dict(ledger.children)
    if ledger.start is not None and ledger.end is None:  # a worker that outlives its task is none that is left behind
        noted[ledger.pid] = ledger.start
    ahead = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    alive, zombies = [], []
    for pid, at in noted.items():
        found = stat(pid)
        if found is None or found.started > at + ahead + 2 / _TICK:  # gone, and its pid another's
            continue
        if found.state not in "ZX":
            alive.append(pid)
        elif found.parent not in (1, os.getpid()):
            zombies.append(pid)
    return Left(tuple(alive), tuple(zombies))


def kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def descendants(root: int) -> set[int]:
    """Of one process, itself not counted."""
    parents: dict[int, list[int]] = {}
    for pid in _pids():
        if found := stat(pid):
            parents.setdefault(found.parent, []).append(pid)
    todo, seen = [root], set[int]()
    while todo:
        for pid in parents.get(todo.pop(), ()):
            if pid not in seen:
                seen.add(pid)
                todo.append(pid)
    return seen


def end_all(spare: set[int], bound: float = 10.0) -> None:
    """Kill and reap every descendant of this process but `spare` and theirs."""
    until = time.monotonic() + bound
    while time.monotonic() < until:
        kept = spare.union(*(descendants(pid) for pid in spare)) if spare else set()
        if not (pids := descendants(os.getpid()) - kept):
            return
        kill(pids)
        for pid in pids:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)


def until(true: Callable[[], bool], bound: float, every: float = 0.005) -> bool:
    end = time.monotonic() + bound
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(every)
    return True


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())
