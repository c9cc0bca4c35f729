"""Pinning of a call to cores of its own: all threads of the process go there, native thread pools get that size; then all is as before.

Pools of libraries that are loaded during the call read the environment; those that are there already are resized by threadpoolctl, where
it is installed. The threads that a library has started keep their pool's size otherwise: two threads on one core are slow, not wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from stem_iso.isolate.linux import POOL_SIZES


class Pinning:
    """Of one isolate, whose main thread it is used by."""

    def __init__(self) -> None:
        self._all = os.sched_getaffinity(0)
        self._before: dict[str, str | None] | None = None

    def pin(self, cpus: tuple[int, ...]) -> None:
        self._before = {name: os.environ.get(name) for name in POOL_SIZES}
        _move(cpus)
        os.environ.update(dict.fromkeys(POOL_SIZES, str(len(cpus))))
        _resize(len(cpus))

    def unpin(self) -> None:
        """Nothing where nothing was pinned."""
        if self._before is None:
            return
        before, self._before = self._before, None
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _move(self._all)
        size = next((value for value in before.values() if value), "")
        _resize(int(size) if size.isdigit() else len(self._all))


def _move(cpus: Iterable[int]) -> None:
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError):  # the thread has ended; or the core is offline, or no longer allowed: then it runs where it may
            os.sched_setaffinity(int(thread), cpus)


def _resize(threads: int) -> None:
    with suppress(ImportError):
        import threadpoolctl

        threadpoolctl.threadpool_limits(threads)
