"""CPU cores that one call has for itself: which there are, who has them, and which come next.

    allowed set (taskset, cpuset) ─┐
    quota (cgroup cpu.max) ────────┼─> choose ──> lock the byte of each core ──> claim ── give_back ──> free
    siblings (sysfs topology) ─────┘                    one file for the machine

Rules
 1. A whole physical core before a hyper-thread beside somebody: `choose` is pure, and takes first what has no neighbour at all.
 2. One account for all workers of the machine: byte n of one file is core n, locked by whoever has it (an open-file-description lock,
    so it is gone the moment its holder dies, and asking who has what takes no lock). A fork of the program closes its copy of the file.
 3. Where a cgroup grants less time than there are cores, no more cores are claimed than it grants.
 4. Nothing here waits. What cannot be had now is not had: the call runs on all allowed cores, and its log says so.

Not promised: that nobody else runs on a claimed core. Calls that claim none, and other programs, share all of them.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import tempfile
import weakref
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from stem_iso.isolate.machine import own_quota

SYSTEM = Path("/sys/devices/system/cpu")
VARIABLE = "STEM_ISO_CORES_FILE"
NAME = "stem_iso.cores"
PLACES = ("/run/lock", "/dev/shm")  # the first that everybody may write to, as one account needs; else the folder for temporary files

FLOCK = struct.Struct("hhqqi4x")  # struct flock with 64-bit offsets: type, whence, start, length, pid (0 for these locks)


def choose(count: int, allowed: Collection[int], taken: Collection[int], siblings: Mapping[int, Collection[int]]) -> tuple[int, ...]:
    """The cores to claim, or none if there are not enough. Pure.

    Threads of one physical core are `siblings` of each other. First one thread of each core that nobody uses, then second threads of those,
    then what lies beside a taken one; in each group by number.
    """
    chosen: list[int] = []
    free = [cpu for cpu in sorted(allowed) if cpu not in taken]
    while len(chosen) < count and len(free) > 0:
        busy = {*taken, *chosen}
        best = min(free, key=lambda cpu: (_neighbours(cpu, taken, siblings), _neighbours(cpu, busy, siblings), cpu))
        chosen.append(best)
        free.remove(best)
    return tuple(sorted(chosen)) if len(chosen) == count else ()


def _neighbours(cpu: int, busy: Collection[int], siblings: Mapping[int, Collection[int]]) -> int:
    return sum(other in busy for other in siblings.get(cpu, ()) if other != cpu)


def cpu_list(text: str) -> frozenset[int]:
    """ "0-3,8" as the kernel writes it."""
    ends = [part.partition("-") for part in text.strip().split(",") if part]
    return frozenset(cpu for first, _, last in ends for cpu in range(int(first), int(last or first) + 1))


def siblings_of(cpus: Iterable[int], system: Path = SYSTEM) -> dict[int, frozenset[int]]:
    """The threads of each core's physical core; a core whose topology is not told stands alone."""
    found = {}
    for cpu in cpus:
        try:
            found[cpu] = cpu_list((system / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text())
        except (OSError, ValueError):
            found[cpu] = frozenset({cpu})
    return found


class Cores:
    """The account of one engine, used under its lock. `allowed` are the cores that its isolates may run on."""

    def __init__(self, allowed: Collection[int] | None = None, path: Path | None = None) -> None:
        self.allowed = frozenset(os.sched_getaffinity(0) if allowed is None else allowed)
        granted = own_quota()
        self.most = len(self.allowed) if granted is None else min(len(self.allowed), max(1, int(granted)))
        self._siblings = siblings_of(self.allowed)
        self._path = path
        self._file: int | None = None  # opened with the first claim: most engines never claim
        self._mine: set[int] = set()

    def claim(self, count: int) -> tuple[int, ...]:
        """So many cores that are nobody else's, until `give_back`; none where that cannot be."""
        if len(self._mine) + count > self.most or self._open() is None:
            return ()
        taken = self._mine | {cpu for cpu in self.allowed - self._mine if self._is_others(cpu)}
        while chosen := choose(count, self.allowed, taken, self._siblings):
            got = {cpu for cpu in chosen if self._lock(cpu, fcntl.F_WRLCK)}
            if len(got) == count:
                self._mine |= got
                return chosen
            for cpu in got:
                self._lock(cpu, fcntl.F_UNLCK)
            taken |= set(chosen) - got  # somebody was faster
        return ()

    def give_back(self, cpus: Iterable[int]) -> None:
        for cpu in cpus:
            self._mine.discard(cpu)
            self._lock(cpu, fcntl.F_UNLCK)

    def close(self) -> None:
        """All of them are free."""
        self._mine.clear()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    # -- the file ------------------------------------------------------------------------------------------------------------------

    def _open(self) -> int | None:
        if self._file is None:
            with suppress(OSError):
                self._file = _account(self._path or _default_path())
                own = weakref.ref(self)
                os.register_at_fork(after_in_child=lambda: _abandon(own()))
        return self._file

    def _lock(self, cpu: int, kind: int) -> bool:
        assert self._file is not None
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, FLOCK.pack(kind, os.SEEK_SET, cpu, 1, 0))
        except OSError:
            return False
        return True

    def _is_others(self, cpu: int) -> bool:
        assert self._file is not None
        asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, cpu, 1, 0)
        kind: int = FLOCK.unpack(fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, asked))[0]
        return kind != fcntl.F_UNLCK


def _abandon(cores: Cores | None) -> None:
    """In a fork of the program: its copy of the file would keep the parent's cores locked after the parent's death."""
    if cores is not None:
        cores.close()


def _default_path() -> Path:
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given)
    return Path(next(filter(_is_everybodys, PLACES), tempfile.gettempdir())) / NAME


def _is_everybodys(folder: str) -> bool:
    with suppress(OSError):
        return bool(os.stat(folder).st_mode & stat.S_IWOTH)
    return False


def _account(path: Path) -> int:
    """The file, made for everybody by whoever comes first. Opened without O_CREAT where it is there: the kernel refuses that for another
    user's file in a folder that all may write to. Raises OSError."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        file = os.open(path, flags | os.O_CREAT, 0o666)
        with suppress(OSError):
            os.fchmod(file, 0o666)  # whatever the umask says
        return file
