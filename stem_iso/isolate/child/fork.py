"""The end of a process that a handler forked and that comes back: it ends where the handler does, as a program ends at its last line.

    with ForkedChildGuard():     parent: nothing
        handler()                child:  exit code as Python's own, traceback to stderr, what it printed flushed; os._exit

What would follow is the parent's: the reply, the shared row, atexit, and the text that stood in buffers at the fork, which therefore is
flushed before each fork (`flush_before_forks`). A child that ends by itself (`os._exit`, exec, multiprocessing's) never comes here.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from types import TracebackType


class ForkedChildGuard:
    """Around user code, as near to it as can be: nothing else may be left by the child on its way out."""

    __slots__ = ("_owner",)

    def __enter__(self) -> None:
        self._owner = os.getpid()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if os.getpid() != self._owner:
            leave(error)


def leave(error: BaseException | None) -> None:
    """Does not return."""
    try:
        code = _exit_code(error)
        for thread in threading.enumerate():  # of the child: those of the parent are not in it
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        flush()
    except BaseException:  # user code prints and joins: whatever it raises, this process ends here
        code = 1
    os._exit(code)


def _exit_code(error: BaseException | None) -> int:
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
        return 1
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def flush() -> None:
    """The handler may have closed or replaced the streams."""
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105  `suppress` is three quarters of the cost, which every call has
            stream.flush()
        except (AttributeError, ValueError, OSError):
            pass


def flush_before_forks() -> None:
    """For the whole life of the process: else what stands in a buffer would be written by parent and child."""
    os.register_at_fork(before=flush)
