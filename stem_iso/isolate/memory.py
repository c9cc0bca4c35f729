"""How much memory an isolate and its descendants hold, and the watch that ends those who hold too much (I8).

    dispatch ── watch(isolate, call, pid, limit) ──> thread: measure ─ pause ─ measure ... ──> over(isolate, call, bytes) ──> engine
    the call's end ── forget(isolate) ────────────^

Rules
 1. Resident memory (/proc/PID/statm) of the whole tree is the cheap measure: 10 µs a process, and never too little, because a page of
    several processes counts several times. The proportional one (PSS, smaps_rollup) counts it once, and costs 10 ms a GiB. It is taken at
    the first look, so that the difference is known, and again where resident memory less that difference passes the limit: it decides.
 2. What one process alone holds privately (resident less file-backed and shared) counts whatever the others share: past the limit, it
    decides without PSS.
 3. The pause shrinks with the room that is left, as if memory grew at `GROWTH`: 50 ms at most, 2 ms close to the limit. So what grows at
    1 GiB/s is seen at most 2 MiB past its limit, plus what it gets while PSS is read and until it is dead: `bench/memory.py` measures it.
 4. Looks and PSS take a tenth of the thread's time each at most: a tree of hundreds, or one that shares gigabytes, is looked at less often.
    On a thread of its own, because reading PSS holds up whoever reads it; it only measures. The engine judges, and kills.
 5. What is not mapped (files in tmpfs, page cache) is nobody's memory here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from math import inf
from time import monotonic

from stem_iso.isolate import tree

GROWTH = 4 << 30  # bytes a second: what one thread can touch; several may be faster for a moment
SHORTEST, LONGEST = 0.002, 0.05
SHARE = 9  # rest at least so many times the cost of a look
PAGE = os.sysconf("SC_PAGE_SIZE")


def pause(room: int, cost: float) -> float:
    """Seconds until the next look, with so many bytes left and a look that took `cost` seconds. Pure."""
    return max(min(room / GROWTH, LONGEST), SHORTEST, SHARE * cost)


def resident(pid: int) -> tuple[int, int]:
    """Bytes in RAM that a process has mapped, and those of them that are its own alone (or its forks'); zeros if it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            _, pages, shared, *_ = file.read().split()
    except (OSError, ValueError):
        return 0, 0
    return int(pages) * PAGE, (int(pages) - int(shared)) * PAGE


def proportional(pid: int) -> int:
    """Bytes in RAM, each page divided by the number of processes that map it; where the kernel does not tell, what is resident."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb", buffering=0) as file:
            for line in file.read().splitlines():
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    return resident(pid)[0]


def family(pid: int) -> list[int]:
    """The process and its living descendants."""
    found = [pid]
    for each in found:
        found += tree.children(each)
    return found


class Meter:
    """Measures one tree against one limit. `used` and `due` are what the last look found and when the next one should be."""

    def __init__(self, pid: int, limit: int) -> None:
        self._pid, self._limit = pid, limit
        self._doubled: int | None = None  # bytes that resident memory counts too often; None: not known
        self._precise_after = 0.0
        self.used = 0
        self.due = monotonic() + SHORTEST

    def look(self) -> bool:
        """Whether it holds too much."""
        began = monotonic()
        pids = family(self._pid)
        each = [resident(pid) for pid in pids]
        total, alone = sum(one[0] for one in each), max(one[1] for one in each)
        looked = monotonic()
        over = self._judge(pids, total, alone, looked)
        self.due = monotonic() + pause(self._limit - self.used, looked - began)
        return over

    def _judge(self, pids: list[int], total: int, alone: int, now: float) -> bool:
        self.used = alone if self._doubled is None else max(alone, total - self._doubled)
        if alone > self._limit:
            return True
        unsure = self._doubled is None or self.used > self._limit
        if not unsure or now < self._precise_after:
            return False
        self.used = sum(map(proportional, pids))
        self._doubled = max(0, total - self.used)
        after = monotonic()
        self._precise_after = after + SHARE * (after - now)
        return self.used > self._limit


class Watcher:
    """`over(isolate, call, bytes)` is called on the watch's thread. Started with the first `watch`."""

    def __init__(self, over: Callable[[int, int, int], None]) -> None:
        self._over = over
        self._watched: dict[int, tuple[int, Meter]] = {}  # by isolate: call and its meter; this and what follows under the condition's lock
        self._next = inf
        self._closed = False
        self._wake = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None

    def watch(self, isolate: int, call: int, pid: int, limit: int) -> None:
        """From now on. Costs no wake-up where the thread looks soon enough anyway."""
        meter = Meter(pid, limit)
        with self._wake:
            self._watched[isolate] = call, meter
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="stem_iso-memory", daemon=True)
                self._thread.start()
            if meter.due < self._next:
                self._next = meter.due
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
            for isolate, (call, meter) in due:
                if meter.look():
                    self._over(isolate, call, meter.used)

    def _due(self) -> list[tuple[int, tuple[int, Meter]]] | None:
        """Sleeps until something is; None at the end."""
        with self._wake:
            while not self._closed:
                now = monotonic()
                due = [each for each in self._watched.items() if each[1][1].due <= now]
                if due:
                    return due
                self._next = min((meter.due for _, meter in self._watched.values()), default=inf)
                self._wake.wait(None if self._next == inf else self._next - now)
        return None
