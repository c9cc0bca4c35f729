"""Kill a process and everything that descends from it.

    no children ──> SIGKILL by pidfd                                                           dead in 0.6 to 1.4 ms
    children    ──> stop the root (it stays the adopter of its orphans)
                    ┌> kill each descendant not yet killed, then read *its* children again
                    └─ sleep 0.2 ms until nobody is new and all are gone or zombies, bounded
                    kill the root; what is left falls to the keeper (`orphans`)

Rules
 1. Ancestry, never names or environments: a daemon may empty its environment, but not its parent. The root is a subreaper, so the orphans
    of its descendants fall to it and are found in the next pass; what falls past it falls to the keeper, which sweeps.
 2. SIGSTOP is no barrier against forks (a child appeared after it in 25 of 60 runs), SIGKILL is; hence children are read after the kill.
 3. Never wait for "stopped" or "dead" without a bound: a vfork parent does not stop, a process in uninterruptible sleep does not die.
 4. Each pid is opened as a pidfd and its parentage is checked again afterwards, so that a reused pid is never signalled.
 5. The walk sleeps between passes: a busy re-walk starves the victims of the CPU they need to die on.
 6. /proc may hide a process (hidepid), and a process may be another user's: neither means that it is gone. Its pidfd shows it.

A kill is a generator that yields how long to sleep: the engine runs many side by side on one thread, none in line behind another.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Generator
from enum import Enum
from time import monotonic

from stem_iso.isolate.linux import WALL

PAUSE = 0.0002
PATIENCE = 0.1  # seconds since the last one that was new: beyond it something does not die, and is left to the keeper
LONGEST_WALK = 2.0  # seconds: a storm of forks that no walk ends is easier met from the keeper, once its root is dead
SLICE = 32  # kills between two pauses: a storm of hundreds must not hold up its neighbours' limits

Killed = tuple[tuple[int, str], ...]
Kill = Generator[float, None, Killed]


class SignalResult(Enum):
    """What became of a signal."""

    DELIVERED = "delivered"
    REFUSED = "refused"  # the process lives, and is not ours to signal
    GONE = "gone"


def children(pid: int) -> list[int]:
    """Pids of the living and dead children of each thread of `pid`; none if it is gone, or where /proc hides it."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb", buffering=0) as file:
                found += map(int, file.read().split())
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}/task/{thread}/stat"):  # a kernel without CONFIG_PROC_CHILDREN
                return children_by_stat(pid)
        except (ProcessLookupError, PermissionError):
            continue
    return found


def children_by_stat(pid: int) -> list[int]:
    """The same from /proc/*/stat, for kernels that have no `children` file."""
    return families().get(pid, [])


def families() -> dict[int, list[int]]:
    """Children by parent, of all processes that /proc shows."""
    found: dict[int, list[int]] = {}
    for pid in [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]:
        parent = _parent(pid)
        if parent is not None:
            found.setdefault(parent, []).append(pid)
    return found


def _stat(pid: int) -> list[bytes]:
    """The fields after the name: state, parent, ...; empty if it is gone, or hidden."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def _parent(pid: int) -> int | None:
    stat = _stat(pid)
    return int(stat[1]) if stat else None


def state(pid: int) -> str:
    """Its letter in /proc/PID/stat (R, S, D, T, Z ...); empty if it is gone, or hidden."""
    stat = _stat(pid)
    return stat[0].decode() if stat else ""


def _status(pid: int, *names: bytes) -> dict[bytes, bytes]:
    """These fields of /proc/PID/status; empty if it is gone, or hidden."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            fields = (line.partition(b":") for line in file.read().splitlines())
            return {name: value.strip() for name, _, value in fields if name in names}
    except OSError:
        return {}


def _signal_sets(pid: int, *names: bytes) -> dict[bytes, int]:
    """Masks with a bit for each signal; empty if it is gone, or hidden."""
    return {name: int(value, 16) for name, value in _status(pid, *names).items()}


def takes(pid: int, number: int) -> bool:
    """Whether its first thread has a handler for this signal and does not block it; False if it is gone."""
    found = _signal_sets(pid, b"SigBlk", b"SigCgt")
    bit = 1 << (number - 1)
    return bool(found.get(b"SigCgt", 0) & bit) and not found.get(b"SigBlk", 0) & bit


def is_pending(pid: int, number: int) -> bool:
    """Whether its first thread has yet to take this signal, and can; False if it is gone."""
    found = _signal_sets(pid, b"SigPnd", b"ShdPnd", b"SigBlk")
    pending = found.get(b"SigPnd", 0) | found.get(b"ShdPnd", 0)
    return bool(pending & ~found.get(b"SigBlk", 0) & 1 << (number - 1))


def _ended(stat: list[bytes]) -> bool:
    # A process whose first thread has left by itself is shown as a zombie as well, and runs on in its other threads.
    return stat[0] in (b"Z", b"X") and int(stat[17]) <= 1


def is_dead(pid: int) -> bool:
    """Gone, or a zombie: it runs nothing any more."""
    stat = _stat(pid)
    return _ended(stat) if stat else not _lives_unseen(pid)


def reaped(pid: int) -> bool:
    """Bury this child of ours, if it is dead. False while it lives, and while somebody who traces it has not let go."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | WALL) is not None
    except ChildProcessError:  # somebody, or the kernel, has reaped it
        return True


def _lives_unseen(pid: int) -> bool:
    """Whether a process that /proc does not show is there all the same."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except OSError:  # no descriptor is free: nobody can tell, and who cannot tell must not say "dead"
        return True
    try:
        return not has_exited(pidfd)
    finally:
        os.close(pidfd)


def has_exited(pidfd: int, timeout: float = 0.0) -> bool:
    """Whether its process has ended, or does so within `timeout` seconds."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def title(pid: int) -> str:
    """What `ps` shows; empty if it is gone, or hidden."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
            return file.read(256).replace(b"\0", b" ").strip().decode(errors="replace")
    except OSError:
        return ""


def tracer(pid: int) -> int:
    """The process that traces it; 0 for none, or where it is hidden."""
    return int(_status(pid, b"TracerPid").get(b"TracerPid", 0))


def send(pidfd: int, number: int) -> SignalResult:
    if pidfd < 0:  # never held
        return SignalResult.GONE
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return SignalResult.GONE
    except PermissionError:
        return SignalResult.REFUSED
    return SignalResult.DELIVERED


def kill_child(pid: int, parent: int) -> tuple[SignalResult, str]:
    """SIGKILL `pid` if it still is a living child of `parent`; what became of it, and its title."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return SignalResult.GONE, ""
    try:
        # The pid was read before the pidfd was opened: only a process that still has this parent is the one we mean.
        stat = _stat(pid)
        if stat and (_ended(stat) or int(stat[1]) != parent):
            return SignalResult.GONE, ""
        if not stat and (has_exited(pidfd) or pid not in children(parent)):
            return SignalResult.GONE, ""
        name = title(pid)
        return send(pidfd, signal.SIGKILL), name
    finally:
        os.close(pidfd)


class Walk:
    """Walks down from given processes, again and again, and kills. `killed` and `refused` are what it has met: pid and title."""

    def __init__(self) -> None:
        self.killed: dict[int, str] = {}
        self.refused: dict[int, str] = {}

    def over(self, parent: int, pids: list[int]) -> Generator[float, None, bool]:
        """Kill these children of `parent` and all below. Returns whether anybody was new. Children are read after the kill: rule 2."""
        fresh, steps = False, 0
        queue = [(pid, parent) for pid in pids]
        while queue:
            pid, above = queue.pop()
            steps += 1
            if steps % SLICE == 0:
                yield 0.0
            if pid not in self.killed and pid not in self.refused:
                sent, name = kill_child(pid, above)
                if sent is not SignalResult.GONE:
                    (self.killed if sent is SignalResult.DELIVERED else self.refused)[pid] = name
                    fresh = True
            queue += [(child, pid) for child in children(pid)]
        return fresh


def kill_tree(pid: int, pidfd: int, name: str = "") -> Kill:
    """Kill `pid` and its descendants; returns (pid, title) of each killed, the root first. Yields seconds to sleep."""
    first = children(pid)
    if not first:
        send(pidfd, signal.SIGKILL)
        return ((pid, name),)
    send(pidfd, signal.SIGSTOP)
    killed = yield from kill_descendants(pid)
    send(pidfd, signal.SIGKILL)
    return ((pid, name), *killed)


def kill_descendants(root: int) -> Kill:
    """Kill all below `root`, until they are gone. What will not go is left: another user's at once, the rest after `PATIENCE`."""
    walk = Walk()
    last_new = began = monotonic()
    while True:
        fresh = yield from walk.over(root, children(root))
        now = monotonic()
        last_new = now if fresh else last_new
        exited = not fresh and all(map(is_dead, walk.killed)) and all(pid in walk.refused or is_dead(pid) for pid in children(root))
        if exited or now > last_new + PATIENCE or now > began + LONGEST_WALK:
            return tuple(walk.killed.items())
        yield PAUSE


def run(kill: Kill) -> Killed:
    """Drive one kill to its end on this thread."""
    from time import sleep

    try:
        while True:
            sleep(next(kill))
    except StopIteration as done:
        result: Killed = done.value
        return result
