"""Leftovers of a call: threads and processes that its handler left behind. Looked for after every call, so it costs next to nothing.

    start-up ── take ──> its threads and children, which stay        call ──> left_behind: what is there beyond these

The kernel answers "no children at all" in one system call (`has_children`); only a process that has some pays for a closer look. A zombie
of start-up is left alone: whoever started it may still ask how it ended.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from stem_iso.isolate.keeper.process_tree import children, reaped
from stem_iso.isolate.linux import WALL, has_children

# What a reply says was left. STATE: the process was changed in a way that cannot be put back (`state`).
NOTHING, THREADS, PROCESSES, STATE = 0, 1, 2, 3
RETIRED = 86  # the exit code of an isolate that found such a change when its reply was out


class Leftovers:
    """Used by the main thread, between calls."""

    def __init__(self) -> None:
        self.take()

    def take(self) -> None:
        """What is there now belongs to start-up."""
        self._threads = set(sys._current_frames())
        self._children = set(children(os.getpid()))

    def left_behind(self) -> int:
        if self.reap():
            return PROCESSES
        threads = sys._current_frames().keys()
        if len(threads) == 1:
            return NOTHING
        self._threads &= threads  # the number of one that has ended may be given to another
        return THREADS if threads - self._threads else NOTHING

    def reap(self) -> bool:
        """Bury the zombies, who are nobody's; whether there are children that live, beside those of start-up."""
        return self._reap_others() if self._children else has_children() and _reap_all()

    def _reap_others(self) -> bool:
        now = set(children(os.getpid()))
        self._children &= now
        living = [pid for pid in now - self._children if not reaped(pid)]  # all of them, or zombies would stay
        return bool(living)


def _reap_all() -> bool:
    with suppress(ChildProcessError):
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | WALL)
            if ended is None:
                return True  # some live
            os.waitid(os.P_PID, ended.si_pid, os.WEXITED | WALL)  # a zombie that nobody will ask for any more
    return False
