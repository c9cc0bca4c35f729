"""Kill a process and everything that descends from it.

    no children ──> SIGKILL by pidfd                                                           dead in 0.6 to 1.4 ms
    children    ──> stop the root (it stays the adopter of its orphans)
                    ┌> kill each descendant not yet killed, then read *its* children again
                    └─ sleep 0.2 ms until nobody is new and all are gone or zombies, bounded
                    kill the root

Rules
 1. Ancestry, never names or environments: a daemon may empty its environment, but not its parent. The root is a subreaper, so the orphans
    of its descendants fall to it and are found in the next pass; what falls past it falls to the keeper, which sweeps.
 2. SIGSTOP is no barrier against forks (a child appeared after it in 25 of 60 runs), SIGKILL is; hence children are read after the kill.
 3. Never wait for "stopped" or "dead" without a bound: a vfork parent does not stop, a process in uninterruptible sleep does not die.
 4. Each pid is opened as a pidfd and its parentage is checked again afterwards, so that a reused pid is never signalled.
 5. The walk sleeps between passes: a busy re-walk starves the victims of the CPU they need to die on.

A kill is a generator that yields how long to sleep: the engine runs many side by side on one thread, none in line behind another.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Container, Generator, Iterable
from contextlib import suppress

PAUSE = 0.0002
PASSES = 5_000  # about two seconds of passes: beyond it something does not die, and the caller says so
SLICE = 32  # kills between two pauses: a storm of hundreds must not hold up its neighbours' limits

Killed = tuple[tuple[int, str], ...]
Kill = Generator[float, None, Killed]


def children(pid: int) -> list[int]:
    """Pids of the living and dead children of each thread of `pid`; none if it is gone."""
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
        except ProcessLookupError:
            continue
    return found


def children_by_stat(pid: int) -> list[int]:
    """The same from /proc/*/stat, for kernels that have no `children` file."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _parent(int(entry)) == pid]


def _stat(pid: int) -> list[bytes]:
    """The fields after the name: state, parent, ...; empty if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def _parent(pid: int) -> int | None:
    stat = _stat(pid)
    return int(stat[1]) if stat else None


def state(pid: int) -> str:
    """Its letter in /proc/PID/stat (R, S, D, T, Z ...); empty if it is gone."""
    stat = _stat(pid)
    return stat[0].decode() if stat else ""


def takes(pid: int, number: int) -> bool:
    """Whether its first thread has a handler for this signal and does not block it; False if it is gone."""
    found: dict[bytes, int] = {}
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            for line in file.read().splitlines():
                name, _, value = line.partition(b":")
                if name in (b"SigBlk", b"SigCgt"):
                    found[name] = int(value, 16)
    except OSError:
        return False
    bit = 1 << (number - 1)
    return bool(found.get(b"SigCgt", 0) & bit) and not found.get(b"SigBlk", 0) & bit


def is_dead(pid: int) -> bool:
    """Gone, or a zombie: it runs nothing any more."""
    stat = _stat(pid)
    return not stat or stat[0] in (b"Z", b"X")


def title(pid: int) -> str:
    """What `ps` shows; empty if it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
            return file.read(256).replace(b"\0", b" ").strip().decode(errors="replace")
    except OSError:
        return ""


def send(pidfd: int, number: int) -> bool:
    """False if the process is gone, or was never held."""
    if pidfd < 0:
        return False
    try:
        signal.pidfd_send_signal(pidfd, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def kill_child(pid: int, parent: int) -> str | None:
    """SIGKILL `pid` if it still is a living child of `parent`; its title, or None."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        # The pid was read before the pidfd was opened: only a process that still has this parent is the one we mean.
        stat = _stat(pid)
        if not stat or stat[0] == b"Z" or int(stat[1]) != parent:
            return None
        name = title(pid)
        return name if send(pidfd, signal.SIGKILL) else None
    finally:
        os.close(pidfd)


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


def kill_descendants(root: int, spare: Callable[[], Container[int]] = frozenset) -> Kill:
    """Kill all below `root`, but not the trees of `spare()`: children of it that are not to be touched, asked for anew at each pass."""
    killed: dict[int, str] = {}
    for _ in range(PASSES):
        kept = spare()
        fresh = yield from _pass(root, kept, killed)
        if not fresh and all(is_dead(pid) for pid in killed) and not _living(root, kept):
            break
        yield PAUSE
    return tuple(killed.items())


def _living(root: int, kept: Container[int]) -> list[int]:
    return [pid for pid in children(root) if pid not in kept and not is_dead(pid)]


def _pass(root: int, kept: Container[int], killed: dict[int, str]) -> Generator[float, None, bool]:
    """One walk down the tree: kill, then read the children of what was killed. Returns whether anybody new was found."""
    fresh, steps = False, 0
    queue = [(child, root) for child in children(root) if child not in kept]
    while queue:
        pid, parent = queue.pop()
        steps += 1
        if steps % SLICE == 0:
            yield 0.0
        if pid not in killed and (name := kill_child(pid, parent)) is not None:
            killed[pid] = name
            fresh = True
        queue += [(child, pid) for child in children(pid)]
    return fresh


def reap(pids: Iterable[int]) -> None:
    """Collect what has died of our own children, without waiting."""
    for pid in pids:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def run(kill: Kill) -> Killed:
    """Drive one kill to its end on this thread."""
    from time import sleep

    try:
        while True:
            sleep(next(kill))
    except StopIteration as done:
        result: Killed = done.value
        return result
