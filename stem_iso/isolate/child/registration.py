"""Registration of semaphores, shared memory and folders for removal: with the isolate's tracker, which is outside of its tree.

    multiprocessing, loky ── already hold the pipe's writer
    a copy of loky in another package (joblib) ── starts a tracker ── spawnv_passfds ──> its pipe's writer becomes a copy of ours
    SharedMemory(create=True) ── shm_open ──> CREATED

So nobody in the isolate has a tracker for a child, which would be killed with it and remove nothing, and would count as left behind. What a
handler forks or spawns inherits the descriptors, as from any process with a tracker.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing import resource_tracker, util
from typing import Any

TRACKER = b"resource_tracker import main"  # in the command line of every tracker


def register_with(writer: int) -> None:
    """Once, before user code. `writer` stays open for as long as the process lives."""
    from loky.backend import resource_tracker as loky_tracker

    trackers: tuple[Any, ...] = (resource_tracker._resource_tracker, loky_tracker._resource_tracker)
    for tracker in trackers:
        # A copy each: in a raw fork the newer ones close theirs.
        tracker._fd, tracker._pid = os.dup(writer), None
    Launch(writer)
    Creation(writer)


class Launch:
    """`multiprocessing.util.spawnv_passfds`, which starts no trackers."""

    def __init__(self, writer: int) -> None:
        self._writer = writer
        self._start = util.spawnv_passfds
        vars(util)["spawnv_passfds"] = self

    def __call__(self, path: Any, args: Sequence[Any], passfds: Sequence[int]) -> int | None:
        if not any(TRACKER in os.fsencode(each) for each in args):
            return self._start(path, args, passfds)
        for fd in _writers_of(passfds[-1]):
            os.dup2(self._writer, fd, inheritable=False)
        return None  # whoever asked has no child to wait for


def _writers_of(reader: int) -> list[int]:
    """The other descriptors of this process for the same pipe."""
    pipe, found = os.readlink(f"/proc/self/fd/{reader}"), []
    for entry in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if int(entry) != reader and os.readlink(f"/proc/self/fd/{entry}") == pipe:
                found.append(int(entry))
    return found


class Creation:
    """`_posixshmem.shm_open`, which says what it has created."""

    def __init__(self, writer: int) -> None:
        self._writer = writer
        calls = import_module("_posixshmem")
        self._open = calls.shm_open
        vars(calls)["shm_open"] = self

    def __call__(self, path: str, flags: int, mode: int = 0o777) -> int:
        fd: int = self._open(path, flags, mode=mode)
        if flags & os.O_CREAT:
            with suppress(OSError):  # the handler has closed it: then nothing is registered either
                os.write(self._writer, f"CREATED:{path}:shared_memory\n".encode())
        return fd
