"""Set-up of an isolate's process before any user code: it can be killed whole, and disturbs nobody.

session of its own · subreaper · no blocked signals · TERM and INT do nothing here, and are the default again in what the handler forks or
executes · first to go when the kernel has no memory · /dev/null as stdin · stdout and stderr into pipes · all descriptors close on exec ·
lifeline armed · faults and stacks dumped
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType

from stem_iso.isolate.linux import F_SETSIG, become_subreaper

# Real-time signals: no handler of a user's program has a habit of taking them.
# STACK asks for the stack between two steps of Python. FORCED_STACK takes it at once, inside C code as well. It is for a process that was
# asked and runs no Python, so that its frames stand still: where C code calls Python, a dump can meet a frame that is half made, and crash
# (seen in one of 550 dumps on CPython 3.11, in one of 50 on 3.13).
# RAISE dumps the stack as STACK does, and then raises. NUDGE says it again, to a thread that had looked for signals just before it blocked.
STACK_SIGNAL = signal.SIGRTMIN + 8
RAISE_SIGNAL = signal.SIGRTMIN + 9
NUDGE_SIGNAL = signal.SIGRTMIN + 10
FORCED_STACK_SIGNAL = signal.SIGRTMIN + 11
OWN_SIGNALS = (STACK_SIGNAL, RAISE_SIGNAL, NUDGE_SIGNAL, FORCED_STACK_SIGNAL)

OOM_SCORE = 500  # of 1000: before anything that is as large and has none

QUIET = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def disregard(number: int, frame: FrameType | None) -> None:
    """Not SIG_IGN: exec would inherit that, and the handler's subprocesses could not be stopped by a signal."""


def own_session() -> None:
    os.setsid()
    become_subreaper()


def quiet_signals() -> None:
    for number in QUIET:
        signal.signal(number, disregard)
    masks: list[set[int | signal.Signals]] = []
    # Held back over a fork: a TERM sent to the child in its first instant would else meet our handler there, and be lost.
    os.register_at_fork(
        before=lambda: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, QUIET)),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, masks.pop()),
        after_in_child=lambda: default_signals(masks.pop()),
    )
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def default_signals(mask: set[int | signal.Signals]) -> None:
    for number in (*QUIET, *OWN_SIGNALS):
        if number in QUIET and signal.getsignal(number) is not disregard:
            continue  # the handler set one of its own before it forked
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def own_descriptors(stdout: int, stderr: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (stdout, 1), (stderr, 2)):
        os.dup2(source, target)
    for entry in os.listdir("/proc/self/fd"):
        if int(entry) > 2:
            with suppress(OSError):  # the folder's own descriptor is in the list, and closed by now
                os.set_inheritable(int(entry), False)
    for fd in (null, stdout, stderr):
        os.close(fd)


def forget(fd: int) -> None:
    """Close a descriptor and every copy of it: `mmap` keeps one, and a handler that writes to all it finds would reach the shared row."""
    what = os.readlink(f"/proc/self/fd/{fd}")
    for entry in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{entry}") == what:
                os.close(int(entry))


def first_to_go() -> None:
    """Where the kernel runs out of memory it kills an isolate, or what a handler started, before it thinks of the worker or its keeper."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "r+") as file:
        own = int(file.read())
        file.seek(0)
        file.write(str(min(1000, own + OOM_SCORE)))  # to raise it needs no privilege


def lifeline(fd: int) -> None:
    """When core and keeper are both gone, nobody holds the write end, and the kernel kills our process group, C code or not."""
    # Opened anew, because the owner and the signal belong to the open file, which all isolates would share.
    own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.close(fd)
    fcntl.fcntl(own, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(own, F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(own, fcntl.F_SETFL, fcntl.fcntl(own, fcntl.F_GETFL) | os.O_ASYNC)
    with suppress(BlockingIOError):
        if os.read(own, 1) == b"":  # they were gone before it was armed
            os._exit(1)


def dump_stacks_to(fd: int) -> Callable[[], None]:
    """Fault stacks, and the stack at a limit. Returns what dumps the stack of its caller."""
    os.set_blocking(fd, False)  # a full pipe loses a stack, it does not stop the handler
    faulthandler.enable(file=fd, all_threads=False)
    # This thread's frames alone: another thread may be running Python, and its frames cannot be walked safely from a signal handler.
    faulthandler.register(FORCED_STACK_SIGNAL, file=fd, all_threads=False)

    dump = partial(faulthandler.dump_traceback, fd, all_threads=False)
    signal.signal(STACK_SIGNAL, lambda number, frame: dump())
    signal.siginterrupt(STACK_SIGNAL, False)  # C code of others must not see its system calls end for our sake
    return dump
