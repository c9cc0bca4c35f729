"""They end by themselves: they die, they fail in ways that cannot be reported, or they succeed and leave something behind."""

from __future__ import annotations

import ctypes
import decimal
import faulthandler
import io
import os
import resource
import signal
import sys
import threading
import time
import warnings
from typing import Any

from entrypoints.hostile.company import clone_beside, double_fork, leave_the_tree, traced_by_its_daemon
from entrypoints.hostile.trace import LONGEST, Trace, hostile
from stem_iso import current_context

# -- they die --------------------------------------------------------------------------------------------------------------------------


@hostile()
def segfault(trace: Trace) -> None:
    ctypes.string_at(0)


@hostile()
def exit_zero(trace: Trace) -> None:
    """Exit code 0, and yet no answer."""
    os._exit(0)


@hostile()
def abort(trace: Trace) -> None:
    os.abort()


@hostile()
def kill_group(trace: Trace) -> None:
    os.killpg(0, signal.SIGKILL)


@hostile()
def close_all(trace: Trace) -> None:
    """Closes every descriptor, so that it cannot answer."""
    os.closerange(0, 65536)


@hostile()
def garbage(trace: Trace) -> str:
    """Writes what nobody can read to every descriptor."""
    for number in range(256):
        try:
            os.write(number, b"\xff\x00garbage" * 64)
        except OSError:
            continue
    return "garbage written"


# -- they fail -------------------------------------------------------------------------------------------------------------------------


@hostile()
def sys_exit(trace: Trace) -> None:
    """A failure, not a death."""
    sys.exit(3)


@hostile()
def unserialisable(trace: Trace) -> Any:
    return object()


class Unpicklable(Exception):
    """Its class exists, and yet it cannot travel."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)
        self.closure = lambda: reason


@hostile()
def unpicklable(trace: Trace) -> None:
    raise Unpicklable(reason="it cannot travel")


class Unreducible(Exception):
    """Asked how it travels, it raises."""

    def __reduce__(self) -> Any:
        raise RuntimeError("not this way")


@hostile()
def unreducible(trace: Trace) -> None:
    raise Unreducible("it cannot be taken apart")


class Mute(Exception):
    """Nobody can say what it says."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


@hostile()
def mute(trace: Trace) -> None:
    raise Mute


@hostile(soft=9, hard=10)
def big(trace: Trace) -> bytes:
    """A result larger than any broker takes."""
    return bytes(200_000_000)


@hostile(soft=9, hard=10)
def progress_flood(trace: Trace) -> None:
    """Progress with data far larger than any argument may be."""
    context = current_context()
    assert context is not None
    context.progress(50, data=bytes(200 << 20))


@hostile(soft=9, hard=10)
def meta_flood(trace: Trace) -> None:
    """Metadata of the same size."""
    context = current_context()
    assert context is not None
    context.meta["flood"] = bytes(200 << 20)


# -- they succeed ----------------------------------------------------------------------------------------------------------------------


@hostile()
def threads_left(trace: Trace) -> str:
    """Returns, and leaves threads behind that never end: its isolate is not used again."""
    for _ in range(3):
        threading.Thread(target=time.sleep, args=(LONGEST,)).start()
    return "threads left behind"


@hostile(soft=1, hard=2)
def daemon_left(trace: Trace) -> str:
    """Returns, and leaves a daemon behind that is nobody's child and carries no mark."""
    double_fork(trace)
    return "a daemon left behind"


@hostile(soft=1, hard=2)
def no_subreaper_left(trace: Trace) -> str:
    """Returns, and leaves a daemon behind that fell past its isolate."""
    leave_the_tree(trace)
    return "a daemon left behind"


@hostile(soft=1, hard=2)
def clone_parent_left(trace: Trace) -> str:
    """Returns, and leaves a brother of its isolate behind."""
    clone_beside(trace)
    return "a daemon left behind"


@hostile(soft=1, hard=2)
def tracing_daemon_left(trace: Trace) -> str:
    """Returns, and leaves a daemon behind that traces its isolate."""
    traced_by_its_daemon(trace)
    return "a daemon left behind"


@hostile(soft=1, hard=2)
def state_left(trace: Trace) -> str:
    """Returns, and leaves its process changed in every way that the next call would feel."""
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("the alarm of another call"))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    faulthandler.dump_traceback_later(0.3, exit=True)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    os.chdir("/")
    os.umask(0o077)
    os.environ["STEM_ISO_HOSTILE_STATE"] = "left"
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    decimal.getcontext().prec = 3
    warnings.simplefilter("error")
    sys.settrace(lambda *_: None)
    sys.setrecursionlimit(200)
    sys.stdout = io.StringIO()
    os.close(2)
    return "state left behind"
