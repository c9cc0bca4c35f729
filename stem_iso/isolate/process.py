"""Start one LokyProcess, from the keeper. The only import site of loky.

The keeper starts isolates without loky's two resource trackers (19 and 12 MiB, and both would survive a kill of the keeper): both tracker
objects get a descriptor of /dev/null, so that whatever is registered there is forgotten. The price: a semaphore or a memmap folder that a
killed handler had made stays until the machine restarts.
"""

from __future__ import annotations

import multiprocessing.process
import multiprocessing.resource_tracker
import os
import signal
import sys
from collections.abc import Mapping
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from typing import Any

from loky.backend import get_context
from loky.backend import resource_tracker as loky_tracker

from stem_iso.isolate.linux import SAFE_PATH

# Blocked while an isolate starts, until it has handlers of its own: a Ctrl-C meant for the worker must not kill what is booting.
HELD_BACK = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})

LOKY_IN = Path(loky_tracker.__file__).parents[2]


class Fds:
    """Descriptors that go to the child. loky's own reducers would duplicate them and leave the inheritable original open."""

    def __init__(self, *fds: int) -> None:
        self.fds = fds

    def __reduce__(self) -> tuple[type[Fds], tuple[int, ...]]:
        popen: Any = get_spawning_popen()
        return Fds, tuple(popen.duplicate_for_child(fd) for fd in self.fds)


def without_trackers() -> None:
    """Once, in the keeper, before the first start."""
    trackers: tuple[Any, ...] = (loky_tracker._resource_tracker, multiprocessing.resource_tracker._resource_tracker)
    for tracker in trackers:
        tracker._fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def start(fds: Fds, *, path: list[str], cwd: str, env: Mapping[str, str], argv: list[str]) -> int:
    """The pid of a new isolate, which runs `child.main.main(fds)` with this search path, folder, environment and argv. Raises OSError."""
    from stem_iso.isolate.child.main import main

    os.environ.clear()
    os.environ.update(env)
    # The title is written over argv alone; without this it overwrites the environment that /proc shows.
    os.environ["SPT_NOENV"] = "1"
    # What the isolate imports before it is adopted must not come from the working folder; its search path is set when it boots.
    if not os.environ.get("PYTHONSAFEPATH") and not os.path.samefile(LOKY_IN, cwd):  # there, loky itself is found by that folder alone
        os.environ["PYTHONSAFEPATH"] = SAFE_PATH
    sys.path[:], sys.argv[:] = path, argv
    os.chdir(cwd)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        # daemon=False: a daemonic process may have no children. Nothing may join it at exit either: the keeper kills what it started.
        process: Any = get_context("loky").Process(target=main, args=(fds,), daemon=False)
        process.start()
        multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    for fd in fds.fds:
        os.set_inheritable(fd, False)
    return int(process.pid)
