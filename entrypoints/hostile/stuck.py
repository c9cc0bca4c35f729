"""They go on for ever, alone, and end at their limit."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from entrypoints.hostile.trace import LONGEST, Trace, hostile

# What SIGKILL and SIGSTOP leave to a process.
SIGNALS = sorted(set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP})
RATE, BOUND = 512 << 20, 512 << 20  # bytes a second, and in all


def spin() -> NoReturn:
    while True:
        pass


@hostile()
def loop(trace: Trace) -> None:
    spin()


@hostile()
def sums(trace: Trace) -> int:
    """C code that keeps the GIL."""
    return sum(range(10**12))


@hostile()
def regex(trace: Trace) -> bool:
    """C code that keeps the GIL and looks for no signal."""
    return re.fullmatch(r"(a+)+$", "a" * 40 + "b") is not None


@hostile()
def sleep(trace: Trace) -> None:
    while True:
        time.sleep(3600)


@hostile()
def blocked_read(trace: Trace) -> bytes:
    """Of a pipe to which nobody writes."""
    reader, _ = os.pipe()
    return os.read(reader, 1)


@hostile()
def deaf(trace: Trace) -> None:
    """Blocks every signal that can be blocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    spin()


def answer_all(handler: Callable[..., None] | signal.Handlers) -> None:
    for number in SIGNALS:
        with suppress(OSError):  # two belong to the C library
            signal.signal(number, handler)


@hostile()
def ignores(trace: Trace) -> None:
    """Ignores every signal that can be ignored, the one that asks for its stack included."""
    answer_all(signal.SIG_IGN)
    spin()


@hostile()
def handlers(trace: Trace) -> None:
    """Replaces every signal handler by one that does nothing."""
    answer_all(lambda *_: None)
    spin()


@hostile(action="raise")
def swallow(trace: Trace) -> None:
    """Swallows whatever is raised in it."""
    while True:
        try:
            spin()
        except BaseException:
            continue


@hostile()
def flood(trace: Trace) -> None:
    """Prints without end."""
    while True:
        print("x" * 4096)


@hostile()
def blank_lines(trace: Trace) -> None:
    """Prints empty lines without end: few bytes each, and yet each a line for whoever reads them."""
    while True:
        os.write(1, b"\n" * 65536)


@hostile()
def stops_itself(trace: Trace) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def devour() -> NoReturn:
    kept: list[bytes] = []
    step, began = 4 << 20, time.monotonic()
    while len(kept) * step < BOUND:
        kept.append(b"x" * step)
        time.sleep(max(0.0, began + len(kept) * step / RATE - time.monotonic()))
    spin()


@hostile()
def hog(trace: Trace) -> None:
    """Takes half a gigabyte a second, half a gigabyte in all, and nobody has limited it but in time."""
    devour()


@hostile(soft=4, hard=5, memory="96MiB")
def hog_limited(trace: Trace) -> None:
    """The same, over its memory limit long before its time is up."""
    devour()


@hostile()
def threads(trace: Trace) -> None:
    """Threads that never end, some of them in Python."""
    for target in (spin, spin, lambda: time.sleep(LONGEST)):
        threading.Thread(target=target).start()
    spin()
