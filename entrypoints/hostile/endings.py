"""They end by themselves: they die, they fail in ways that cannot be told, or they succeed and leave something behind."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from typing import Any

from entrypoints.hostile.company import double_fork
from entrypoints.hostile.trace import LONGEST, Trace, hostile

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
