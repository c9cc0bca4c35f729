"""The memory of an isolate and its descendants: the watch that ends those who hold too much, and the kernel's kills for lack of it.

    a call is sent ── watch(isolate, call, view, limit) ──> thread: measure ─ pause ─ measure ... ──> over(isolate, call, bytes) ──> engine
    the call's end ── forget(isolate) ────────────────^

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
 6. Where /proc hides processes (hidepid), a process that makes itself undumpable cannot be looked up any more, but a file of /proc that is
    open stays readable. So the keeper opens an isolate's before any user code runs there, and the watch those of descendants that it
    meets, `MOST_HELD` a tree. Not counted there: a descendant that hid before the watch met it (the fork of a hidden process is hidden at
    once), and hidden ones below it. An isolate that was hidden from its first instant on (a Python with capabilities of its own) gets no
    call that has a memory limit.
 7. The kernel's out-of-memory killer reports to nobody, but counts its kills: in the own cgroup (memory.events, or memory.oom_control of
    v1), for the machine in /proc/vmstat. Where the count grew, the SIGKILL of this death was most likely the kernel's.

Not promised: an isolate that somebody else kills with SIGKILL, after the kernel has killed another process of the same cgroup in that
isolate's lifetime, is taken for a victim of the kernel as well.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf
from pathlib import Path
from time import monotonic

from stem_iso.isolate.keeper import process_tree

GROWTH = 4 << 30  # bytes a second: what one thread can touch; several may be faster for a moment
SHORTEST, LONGEST = 0.002, 0.05
SHARE = 9  # rest at least so many times the cost of a look
MOST_HELD = 8  # descendants of one tree that are held open where /proc hides: descriptors are the whole program's
PAGE = os.sysconf("SC_PAGE_SIZE")
CGROUPS, VMSTAT = Path("/sys/fs/cgroup"), Path("/proc/vmstat")


def pause(room: int, cost: float) -> float:
    """Seconds until the next look, with so many bytes left and a look that took `cost` seconds. Pure."""
    return max(min(room / GROWTH, LONGEST), SHORTEST, SHARE * cost)


def _sizes(statm: bytes) -> tuple[int, int]:
    _, pages, shared, *_ = map(int, statm.split())
    return pages * PAGE, (pages - shared) * PAGE


def resident(pid: int) -> tuple[int, int]:
    """Bytes in RAM that a process has mapped, and those of them that are its own alone (or its forks'); zeros if it is gone, or hidden."""
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            return _sizes(file.read())
    except (OSError, ValueError):
        return 0, 0


def proportional(pid: int) -> int | None:
    """Bytes in RAM, each page divided by the number of processes that map it; None where the kernel does not tell."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb", buffering=0) as file:
            for line in file.read().splitlines():
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    return None


def family(pid: int) -> list[int]:
    """The process and its living descendants."""
    found = [pid]
    for each in found:
        found += process_tree.children(each)
    return found


def tree_resident(view: MemoryReader, most: int) -> int | None:
    """Bytes in RAM of a process and its descendants, what they share counted for each; None where there are more than `most`."""
    found, total = [view.pid], view.resident()[0]
    for place, each in enumerate(found):
        total += resident(each)[0] if place else 0
        found += process_tree.children(each)
        if len(found) > most:
            return None
    return total


def open_files(pid: int) -> tuple[int, ...]:
    """Descriptors for a `MemoryReader` of this process; none where it is hidden already, or no descriptor is free."""
    opened: list[int] = []
    try:
        for name in ("statm", f"task/{pid}/children"):
            opened.append(os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        for fd in opened:
            os.close(fd)
        return ()
    return tuple(opened)


class MemoryReader:
    """Reads about one process: by descriptors that were opened before it could hide, else by name.

    Owns the descriptors. They are closed with the last who refers to it: the watch may be in the middle of a look when its isolate ends.
    """

    __slots__ = ("_children", "_statm", "pid")

    def __init__(self, pid: int, statm: int = -1, children: int = -1) -> None:
        self.pid, self._statm, self._children = pid, statm, children

    def __del__(self) -> None:
        for fd in (self._statm, self._children):
            if fd >= 0:
                with suppress(OSError):  # somebody closed all there is, as a daemon does
                    os.close(fd)

    @property
    def held(self) -> bool:
        return self._statm >= 0

    def resident(self) -> tuple[int, int]:
        """As the function of this name, also where the process is hidden."""
        if not self.held:
            return resident(self.pid)
        try:
            return _sizes(os.pread(self._statm, 256, 0))
        except (OSError, ValueError):
            return 0, 0

    @property
    def reaped(self) -> bool:
        """Whether its process is reaped, so that the pid may be another's."""
        try:
            return not os.pread(self._statm, 1, 0)
        except ProcessLookupError:
            return True

    def children(self) -> list[int]:
        """Of its first thread, also where the process is hidden."""
        try:
            return [int(pid) for pid in os.pread(self._children, 1 << 16, 0).split()]
        except OSError:
            return []


class OpenTree:
    """A tree where /proc hides processes: what was met once stays known."""

    def __init__(self, root: MemoryReader) -> None:
        self._root = root
        self._held: dict[int, MemoryReader] = {}  # descendants

    def sizes(self) -> dict[int, tuple[int, int]]:
        """`resident` of each process of the tree."""
        found: dict[int, tuple[int, int]] = {}
        queue, shown = [self._root.pid], None
        for pid in queue:
            if pid in found:
                continue
            view = self._view(pid)
            found[pid] = view.resident()
            if os.path.exists(f"/proc/{pid}/statm"):
                queue += process_tree.children(pid)
            else:  # only the list of its first thread is at hand: children of the others are found by the parent that each names
                shown = process_tree.families() if shown is None else shown
                queue += [*view.children(), *shown.get(pid, ())]
        self._held = {pid: view for pid, view in self._held.items() if pid in found}
        return found

    def _view(self, pid: int) -> MemoryReader:
        if pid == self._root.pid:
            return self._root
        view = self._held.get(pid)
        if view is None or view.reaped:
            view = MemoryReader(pid, *(open_files(pid) if len(self._held) < MOST_HELD else ()))
            self._held.pop(pid, None)
            if view.held:
                self._held[pid] = view
        return view


class Meter:
    """Measures one tree against one limit. `used` and `due` are what the last look found and when the next one should be."""

    def __init__(self, view: MemoryReader, limit: int) -> None:
        self._pid, self._limit = view.pid, limit
        self._open = OpenTree(view) if view.held else None
        self._doubled: int | None = None  # bytes that resident memory counts too often; None: not known
        self._precise_after = 0.0
        self.used = 0
        self.due = monotonic() + SHORTEST

    def is_over(self) -> bool:
        """Whether it holds too much."""
        began = monotonic()
        each = {pid: resident(pid) for pid in family(self._pid)} if self._open is None else self._open.sizes()
        looked = monotonic()
        over = self._judge(each, looked)
        self.due = monotonic() + pause(self._limit - self.used, looked - began)
        return over

    def _judge(self, each: dict[int, tuple[int, int]], now: float) -> bool:
        total, alone = sum(one[0] for one in each.values()), max(one[1] for one in each.values())
        self.used = alone if self._doubled is None else max(alone, total - self._doubled)
        if alone > self._limit:
            return True
        unsure = self._doubled is None or self.used > self._limit
        if not unsure or now < self._precise_after:
            return False
        self.used = 0
        for pid, (mapped, _) in each.items():
            precise = proportional(pid)
            self.used += mapped if precise is None else precise
        self._doubled = max(0, total - self.used)
        after = monotonic()
        self._precise_after = after + SHARE * (after - now)
        return self.used > self._limit


class MemoryWatcher:
    """`over(isolate, call, bytes)` is called on the watch's thread. Started with the first `watch`."""

    def __init__(self, over: Callable[[int, int, int], None]) -> None:
        self._over = over
        self._watched: dict[int, tuple[int, Meter]] = {}  # by isolate: call and its meter; this and what follows under the condition's lock
        self._next = inf
        self._closed = False
        self._wake = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None

    def watch(self, isolate: int, call: int, view: MemoryReader, limit: int) -> None:
        """From now on. Costs no wake-up where the thread looks soon enough anyway."""
        meter = Meter(view, limit)
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

    def used(self, isolate: int) -> int | None:
        """Bytes, at the last look; None where it has no limit, or has not been looked at."""
        watched = self._watched.get(isolate)
        return (watched[1].used or None) if watched is not None else None

    def close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify()

    # -- the thread ----------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (due := self._due()) is not None:
            for isolate, (call, meter) in due:
                if meter.is_over():
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


# -- the kernel's out-of-memory killer ---------------------------------------------------------------------------------------------


def oom_counters(membership: str, cgroups: Path = CGROUPS) -> Iterator[Path]:
    """Where the kills of these cgroups (text of /proc/self/cgroup) may be counted, the narrowest first; not all of them exist.

    In a container the path that the kernel names may be the host's, which is not there: the container's own root is then the cgroup.
    """
    for line in membership.splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        inside = path.lstrip("/")
        if "memory" in controllers.split(","):
            yield cgroups / "memory" / inside / "memory.oom_control"
            yield cgroups / "memory" / "memory.oom_control"
        elif hierarchy == "0":
            yield cgroups / inside / "memory.events"
            yield cgroups / "memory.events"


def oom_kills(counter: Path) -> int | None:
    """How many processes it has killed; None where the file does not say."""
    try:
        words = [line.split() for line in counter.read_text().splitlines()]
        return next((int(count) for name, count in words if name == "oom_kill"), None)
    except (OSError, ValueError):
        return None


class OomKills:
    """Owned by the engine, under its lock. A look costs 20 µs."""

    def __init__(self, counter: Path | None = None) -> None:
        self._counter = counter if counter is not None else _own_counter()
        self._seen = oom_kills(self._counter) or 0

    def grew(self) -> bool:
        """Whether it has killed since the last time that this was asked."""
        before, self._seen = self._seen, oom_kills(self._counter) or 0
        return self._seen > before


def _own_counter() -> Path:
    try:
        membership = Path("/proc/self/cgroup").read_text()
    except OSError:
        membership = ""
    return next((path for path in oom_counters(membership) if oom_kills(path) is not None), VMSTAT)
