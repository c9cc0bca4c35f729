"""Rights of root's that a test takes from a program before it starts."""

from __future__ import annotations

import ctypes
import os

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_KILL, CAP_SYS_PTRACE = 1, 2, 5, 19
PR_CAPBSET_DROP = 24


def drop(*capabilities: int) -> None:
    """In a new process: what it executes lacks these, though it is root's. Raises OSError, for one, where this process is not root's."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in capabilities:
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            errno = ctypes.get_errno()
            raise OSError(errno, os.strerror(errno))


def drop_right_to_kill() -> None:
    """It may signal its own user's processes alone."""
    drop(CAP_KILL)
