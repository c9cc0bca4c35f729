"""Calls of Linux by which a hostile handler gets away from its parent: Python has no names for them.

Not in `hostile`, whose handlers make an application: what only needs the calls, such as the isolates of tests, would import all of it.
"""

from __future__ import annotations

import ctypes
import platform
import signal

PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
PTRACE_SEIZE = 0x4206
CLONE_PARENT = 0x8000
CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine())  # the number of the system call; None: not known for this machine

_libc = ctypes.PyDLL(None, use_errno=True)  # it keeps the GIL, so that a child finds nobody else holding it


def stop_being_subreaper() -> None:
    """Orphans of what this process starts fall past it from now on."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def become_undumpable() -> None:
    """Where /proc hides what one may not trace, nobody sees this process any more."""
    _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def clone_sibling() -> int:
    """As fork, but the child's parent is this process's own."""
    return int(_libc.syscall(CLONE, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0))


def seize(pid: int) -> bool:
    """Trace a process that is no child, as a debugger does; False where that is not allowed."""
    return bool(_libc.ptrace(PTRACE_SEIZE, pid, None, None) == 0)
