"""How much memory an isolate and its descendants hold, and the watch that ends those who hold too much (I8).

    dispatch ── watch(isolate, call, pid, limit) ──> thread: measure ─ pause ─ measure ... ──> over(isolate, call, bytes) ──> engine
    the call's end ── forget(isolate) ────────────^

Rules
 1. Resident memory (/proc/PID/statm) of the whole tree is the cheap measure, and it never says too little. Only where it passes the limit
    is the proportional one taken (smaps_rollup, PSS), which counts a page that several processes share once, and which decides.
 2. The pause shrinks with the room that is left, as if memory grew at `GROWTH`: 50 ms at most, 2 ms close to the limit. What grows at
    1 GiB/s is therefore seen 2 to 3 MiB past its limit, plus what it gets until it is dead: `bench/memory.py` measures both.
 3. A measure takes at most a tenth of its thread's time, whatever the tree: the pause is at least nine times as long as the measure took.
    (40 µs for a process, some ms for the PSS of a gigabyte.)
 4. On a thread of its own, because reading PSS holds up whoever reads it; it only measures. The engine judges, and kills.
 5. What is not mapped (files in tmpfs, page cache) is nobody's memory here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from time import monotonic

from stem_iso.isolate import tree

GROWTH = 4 << 30  # bytes a second: what one thread can touch; several may be faster for a moment
SHORTEST, LONGEST = 0.002, 0.05
SHARE = 9  # pause at least so many times the cost of a measure
PAGE = os.sysconf("SC_PAGE_SIZE")


def pause(room: int, cost: float) -> float:
    """Seconds until the next measure, with so many bytes left and a measure that took `cost` seconds. Pure."""
    return max(min(room / GROWTH, LONGEST), SHORTEST, SHARE * cost)


def resident(pid: int) -> int:
    """Bytes in RAM that a process has mapped; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            return int(file.read().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def proportional(pid: int) -> int:
    """The same, each page divided by the number of processes that map it; where the kernel does not tell, what is resident."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb", buffering=0) as file:
            for line in file.read().splitlines():
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    return resident(pid)


def family(pid: int) -> list[int]:
    """The process and its living descendants."""
    found = [pid]
    for each in found:
        found += tree.children(each)
    return found


def in_use(pid: int, limit: int) -> int:
    """Bytes that the tree below `pid` holds; exact (rule 1) only where that is about `limit`."""
    pids = family(pid)
    most = sum(map(resident, pids))
    return most if most <= limit else sum(map(proportional, pids))


@dataclass(slots=True)
class Watched:
    call: int
    pid: int
    limit: int
    due: float


class Watcher:
    """`over(isolate, call, bytes)` is called on the watch's thread. Started with the first `watch`."""

    def __init__(self, over: Callable[[int, int, int], None]) -> None:
        self._over = over
        self._watched: dict[int, Watched] = {}  # by isolate; this and what follows under the condition's lock
        self._next = inf
        self._closed = False
        self._wake = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None

    def watch(self, isolate: int, call: int, pid: int, limit: int) -> None:
        """From now on. Costs no wake-up where the thread looks soon enough anyway."""
        due = monotonic() + SHORTEST
        with self._wake:
            self._watched[isolate] = Watched(call, pid, limit, due)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="stem_iso-memory", daemon=True)
                self._thread.start()
            if due < self._next:
                self._next = due
                self._wake.notify()

    def forget(self, isolate: int) -> None:
        with self._wake:
            self._watched.pop(isolate, None)

    def close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify()

    # -- the thread ----------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (due := self._due()) is not None:
            for isolate, watched in due:
                self._look(isolate, watched)

    def _due(self) -> Iterable[tuple[int, Watched]] | None:
        """Sleeps until something is; None at the end."""
        with self._wake:
            while not self._closed:
                now = monotonic()
                due = [each for each in self._watched.items() if each[1].due <= now]
                if due:
                    return due
                self._next = min((watched.due for watched in self._watched.values()), default=inf)
                self._wake.wait(None if self._next == inf else self._next - now)
        return None

    def _look(self, isolate: int, watched: Watched) -> None:
        before = monotonic()
        used = in_use(watched.pid, watched.limit)
        after = monotonic()
        watched.due = after + pause(watched.limit - used, after - before)
        if used > watched.limit:
            self._over(isolate, watched.call, used)
