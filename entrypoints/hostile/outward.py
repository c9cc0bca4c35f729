"""They turn on their own worker. To be run apart: every task of that worker pays for it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from entrypoints.hostile.stuck import spin
from entrypoints.hostile.trace import Trace, hostile


def core_of(keeper: int) -> int:
    """The keeper's child that calls itself a worker. Raises IndexError where the worker is part of a program."""
    with open(f"/proc/{keeper}/task/{keeper}/children", "rb") as file:
        below = [int(pid) for pid in file.read().split()]
    titles = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in below}
    cores = [pid for pid, title in titles.items() if title.startswith(b"stem_iso: worker")]
    return cores[0]


@hostile()
def kill_keeper(trace: Trace) -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    spin()


@hostile()
def stop_keeper(trace: Trace) -> None:
    os.kill(os.getppid(), signal.SIGSTOP)
    spin()


@hostile()
def kill_core(trace: Trace) -> None:
    os.kill(core_of(os.getppid()), signal.SIGKILL)
    spin()


@hostile()
def stop_core(trace: Trace) -> None:
    os.kill(core_of(os.getppid()), signal.SIGSTOP)
    spin()
