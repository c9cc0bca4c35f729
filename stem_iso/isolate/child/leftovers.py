"""What a handler left behind when it returned: threads, or processes. Asked after every call, so it must cost next to nothing.

`waitid` answers "no children at all" in one system call; only a process that has some pays for a closer look.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from stem_iso.isolate.linux import WALL

NOTHING, THREADS, PROCESSES = 0, 1, 2


def left_behind() -> int:
    if reap():
        return PROCESSES
    return THREADS if len(sys._current_frames()) > 1 else NOTHING


def reap() -> bool:
    """Bury the zombies, who are nobody's; whether there are children that live."""
    with suppress(ChildProcessError):
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | WALL)
            if ended is None:
                return True  # some live
            os.waitid(os.P_PID, ended.si_pid, os.WEXITED | WALL)  # a zombie that nobody will ask for any more
    return False
