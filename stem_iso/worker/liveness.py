"""Whether a process of this machine still lives, by its pid and start time.

A pid alone says nothing: the kernel gives it away again. A pid and a start time (clock ticks since the machine's boot) name a process for
ever, for whoever is under the same boot and sees the same numbers: in the same pid namespace, and in the same time namespace, which shifts
start times. `machine` names all three; only a worker with the same name is judged.

Every doubt means that it lives: a lease that runs out costs a minute, a task that runs twice at a time costs more.
"""

from __future__ import annotations

import os
from pathlib import Path

STATE, THREADS, START = 0, 17, 19  # fields of /proc/PID/stat behind the name: 3, 20 and 22 of proc(5)


def machine() -> str:
    """Names this boot of the machine and this process's pid and time namespaces; "" where it cannot be trusted to judge others."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return ""  # a /proc of another pid namespace, whose numbers are not ours
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        pids = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return ""
    try:
        times = os.stat("/proc/self/ns/time").st_ino
    except OSError:  # a kernel before 5.6 has none
        times = 0
    return f"{boot}:{pids}:{times}"


def process(pid: int) -> tuple[int, int] | None:
    """A process by its pid and start time; None where there is none, or none to be seen."""
    try:
        return pid, int(_stat(pid)[START])
    except (OSError, ValueError, IndexError):
        return None


def has_exited(pid: int, start: int) -> bool:
    """Whether this process has ended. A zombie has, a stopped one has not."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        pass  # it is another user's
    try:
        fields = _stat(pid)
        if int(fields[START]) != start:
            return True  # its pid has been given to another
        return fields[STATE] in ("Z", "X") and int(fields[THREADS]) <= 1  # a zombie's threads may outlive its first one
    except (OSError, ValueError, IndexError):
        return False  # hidden from us (hidepid), or ended just now: then the next look says so


def _stat(pid: int) -> list[str]:
    # The name may hold anything, blanks and brackets too: what counts stands behind its last bracket.
    return Path(f"/proc/{pid}/stat").read_bytes().decode("latin-1").rpartition(")")[2].split()
