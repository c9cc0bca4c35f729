"""A worker by command that a program starts for itself: it ends with the program, whatever ends that, SIGKILL included.

    program ── write end of a pipe, in it alone
    launcher ── read end (`--owner FD`): the kernel sends it SIGQUIT when the last write end is gone ──> "at once": what runs is given back

An operator's worker has no owner: it ends by signals alone.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from stem_iso.isolate.linux import F_SETSIG


class OwnedWorker(subprocess.Popen[bytes]):
    """As `subprocess.Popen`, of a command that is `python -m stem_iso.worker` with its options. It lives as long as this object at most.

    A fork of the program that goes on without exec holds the worker as well.
    """

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        reader, self._hold = os.pipe2(os.O_CLOEXEC)
        try:
            super().__init__([*command, "--owner", str(reader)], pass_fds=(reader,), **options)
        finally:
            os.close(reader)

    def __del__(self, _close: Any = os.close) -> None:  # bound here: at the interpreter's end `os` may be gone
        with suppress(AttributeError, OSError):
            _close(self._hold)
        super().__del__()


def end_with_owner(descriptor: int) -> None:
    """For a launcher that has its handlers: SIGQUIT when the pipe's other side is gone. Raises OSError for what is no pipe."""
    # Opened anew, because the one to be signalled belongs to the open file, which others may share.
    own = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.close(descriptor)
    fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(own, F_SETSIG, signal.SIGQUIT)
    fcntl.fcntl(own, fcntl.F_SETFL, fcntl.fcntl(own, fcntl.F_GETFL) | os.O_ASYNC)
    with suppress(BlockingIOError):
        if os.read(own, 1) == b"":  # it was gone before that
            os.kill(os.getpid(), signal.SIGQUIT)
