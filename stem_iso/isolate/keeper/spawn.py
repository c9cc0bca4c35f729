"""Start of an isolate as a LokyProcess, in the keeper.

The keeper has none of loky's two resource trackers (19 and 12 MiB): it registers nothing itself, so both tracker objects get a descriptor
of /dev/null. What isolates register goes to a tracker of their own (`tracker_table`).

loky starts a bare `python -m loky.backend.popen_loky_posix`, which knows no flag of the program and looks into the working folder first. So
its last step, fork and exec, is program: the same descriptors, another command line.
"""

from __future__ import annotations

import multiprocessing.process
import multiprocessing.resource_tracker
import os
import signal
import sys
from collections.abc import Mapping
from multiprocessing.context import get_spawning_popen
from typing import Any

from loky.backend import fork_exec, get_context
from loky.backend import resource_tracker as loky_tracker

from stem_iso.isolate.interpreter import Program, code

# Blocked while an isolate starts, until it has handlers of its own: a Ctrl-C meant for the worker must not kill what is booting.
HELD_BACK = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})

lokys_fork_exec = fork_exec.fork_exec


class Fds:
    """Descriptors that go to the child, which gets a plain tuple. loky's own reducers would duplicate them and leave the inheritable
    original open."""

    def __init__(self, *fds: int) -> None:
        self.fds = fds

    def __reduce__(self) -> tuple[type[tuple[int, ...]], tuple[list[int]]]:
        popen: Any = get_spawning_popen()
        return tuple, ([popen.duplicate_for_child(fd) for fd in self.fds],)


def without_trackers() -> None:
    """Once, in the keeper, before the first start."""
    trackers: tuple[Any, ...] = (loky_tracker._resource_tracker, multiprocessing.resource_tracker._resource_tracker)
    for tracker in trackers:
        tracker._fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def start(fds: Fds, program: Program, *, flags: list[str], own_path: list[str], cwd: str, env: Mapping[str, str]) -> int:
    """The pid of a new isolate, which runs `child.main.main(fds, program)` in this folder and environment. Raises OSError."""
    from stem_iso.isolate.child.main import main

    os.environ.clear()
    os.environ.update(env)
    # The title is written over argv alone; without this it overwrites the environment that /proc shows.
    os.environ["SPT_NOENV"] = "1"
    sys.argv[:] = program.argv  # loky sends it along: the launcher's own may hold a password
    os.chdir(cwd)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    fork_exec.fork_exec = _Command(flags, own_path)
    try:
        # daemon=False: a daemonic process may have no children. Nothing may join it at exit either: the keeper kills what it started.
        process: Any = get_context("loky").Process(target=main, args=(fds, program), daemon=False)
        process.start()
        multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
    finally:
        fork_exec.fork_exec = lokys_fork_exec
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    for fd in fds.fds:
        os.set_inheritable(fd, False)
    return int(process.pid)


class _Command:
    """loky's `fork_exec`, for an interpreter with flags that starts in our own module instead of loky's."""

    def __init__(self, flags: list[str], own_path: list[str]) -> None:
        self._flags, self._own_path = flags, own_path

    def __call__(self, command: list[str], keep_fds: list[int], env: Mapping[str, str] | None = None) -> int:
        pipe = int(command[command.index("--pipe") + 1])
        program = code(self._own_path, f"from stem_iso.isolate.child.entry import run; run({pipe})")
        return int(lokys_fork_exec([sys.executable, *self._flags, "-c", program], keep_fds, env))
