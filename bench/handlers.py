"""Hostile handlers: the functions that every system under test runs, the same file everywhere, with the standard library alone.

Each is called as `run(name, ledger)` and first writes to the ledger, a file that is only appended to, who it is and when it began:

    start PID MONOTONIC      the handler's process
    due MONOTONIC            a handler that ends itself: the instant before it does
    end PID MONOTONIC        the handler was ended inside a process that goes on, by an exception; a process that is killed writes none
    child PID MONOTONIC      whatever it started, written by that process itself

CLOCK_MONOTONIC is one clock for all processes of a machine, so the observer's and the handler's times may be subtracted.

`HANDLERS` says of each what its caller must be told. None outlives BOUND seconds, even where nobody ends it: those that spin have so
much processor time, and the others sleep no longer. The hog stops at HOG bytes, the storm at STORM processes.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

BOUND = 40  # seconds
HOG, STORM, CROWD = 512 << 20, 150, 200
BEFORE_END = 0.1  # seconds from the first act to a handler's own end: the observer holds a pidfd by then


def note(ledger: str, kind: str) -> None:
    """One write of less than a page to an append-only file is whole."""
    fd = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    who = "" if kind == "due" else f"{os.getpid()} "
    os.write(fd, f"{kind} {who}{time.monotonic():.6f}\n".encode())
    os.close(fd)


def run(name: str, ledger: str) -> str:
    """What a system runs. The name is one of HANDLERS or INNOCENT."""
    if name == "echo":  # then the second argument is a payload
        return echo(ledger)  # type: ignore[return-value]
    note(ledger, "start")
    process = os.getpid()
    try:
        if name in INNOCENT:
            INNOCENT[name]()
        else:
            bound_processor_time()
            HANDLERS[name].function(ledger)
    finally:
        if os.getpid() != process:  # a fork of the handler's: nobody waits for what it would return
            os._exit(0)
        note(ledger, "end")
    return name


def pause(seconds: float) -> None:
    """What an adapter warms its workers with, each once: they have imported this module then."""
    time.sleep(seconds)


def echo(payload: bytes | str) -> bytes | str:
    return payload


def bound_processor_time() -> None:
    """The kernel ends a handler that spins, code that keeps the GIL included; those that sleep, sleep no longer than BOUND."""
    used = time.process_time()
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    seconds = int(used) + BOUND
    if most == resource.RLIM_INFINITY or seconds < most:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, most))


def rest() -> None:
    end = time.monotonic() + BOUND
    while (left := end - time.monotonic()) > 0:
        time.sleep(left)


def fork(ledger: str, then: Callable[[], None] | None = None) -> None:
    """A child that notes itself and rests; it never returns into its parent's code."""
    if os.fork():
        return
    try:
        note(ledger, "child")
        (then or rest)()
    finally:
        os._exit(0)


# -- what they do ------------------------------------------------------------------------------------------------------------------------


def pure_loop(ledger: str) -> None:
    while True:
        pass


def sleep(ledger: str) -> None:
    rest()


def holds_gil(ledger: str) -> None:
    sum(range(10**12))


def regex(ledger: str) -> None:
    re.fullmatch(r"(a+)+$", "a" * 48 + "b")


def blocked_read(ledger: str) -> None:
    read, _ = os.pipe()
    threading.Timer(BOUND, os._exit, (1,)).start()
    os.read(read, 1)


def ignores_signals(ledger: str) -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            continue  # of libc's own, or this is not the main thread
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    rest()


def swallows(ledger: str) -> None:
    end = time.monotonic() + BOUND
    while time.monotonic() < end:
        try:
            while time.monotonic() < end:
                time.sleep(0.01)
        except BaseException:
            continue


def children(ledger: str) -> None:
    for _ in range(5):
        fork(ledger)
    rest()


def daemon(ledger: str) -> None:
    if os.fork() == 0:
        os.setsid()
        fork(ledger)
        os._exit(0)
    os.wait()
    rest()


def bare_daemon(ledger: str) -> None:
    """Nothing in its environment says where it comes from."""
    code = (
        "import os, sys, time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n"
        "os.write(1, b'child %d %f\\n' % (os.getpid(), time.monotonic())); os.close(1); os.close(0); os.close(2)\n"
        f"time.sleep({BOUND})"
    )
    with open(ledger, "ab", buffering=0) as file:
        subprocess.Popen([sys.executable, "-S", "-E", "-c", code], stdout=file, env={}, start_new_session=True).wait()
    rest()


def fork_storm(ledger: str) -> None:
    """Processes that start the next and end, from before the limit until after it: whoever looks once has missed some."""
    left, end = STORM, time.monotonic() + 3
    while left and time.monotonic() < end:
        if os.fork():
            rest()
            return
        note(ledger, "child")
        left -= 1
        time.sleep(0.01)
    try:
        rest()
    finally:
        os._exit(0)


def crowd(ledger: str) -> None:
    for _ in range(CROWD):
        fork(ledger)
    rest()


def hog(ledger: str) -> None:
    held = []
    for _ in range(HOG >> 24):
        held.append(b"x" * (1 << 24))
        time.sleep(0.005)
    rest()


def segfault(ledger: str) -> None:
    before_end(ledger)
    ctypes.string_at(0)


def exits(ledger: str) -> None:
    before_end(ledger)
    os._exit(0)


def stopped(ledger: str) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)
    rest()


def traced(ledger: str) -> None:
    """A child holds it as a debugger does, and never waits for it."""
    libc, handler = ctypes.CDLL(None, use_errno=True), os.getpid()
    seize, interrupt, set_tracer, anybody = 0x4206, 0x4207, 0x59616D61, ctypes.c_ulong(-1)
    libc.prctl(set_tracer, anybody, 0, 0, 0)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)

    def hold() -> None:
        libc.ptrace(seize, handler, None, None)
        libc.ptrace(interrupt, handler, None, None)
        rest()

    fork(ledger, hold)
    rest()


def before_end(ledger: str) -> None:
    time.sleep(BEFORE_END)
    note(ledger, "due")


@dataclass(frozen=True)
class Handler:
    function: Callable[[str], None]
    title: str  # in tables
    right: tuple[str, ...] = ("timeout",)  # what the caller may be told, without being told wrong
    starts: int = 0  # processes that it starts


HANDLERS = {
    "pure_loop": Handler(pure_loop, "pure loop"),
    "sleep": Handler(sleep, "sleep"),
    "holds_gil": Handler(holds_gil, "C code holding the GIL"),
    "regex": Handler(regex, "catastrophic regex"),
    "blocked_read": Handler(blocked_read, "blocked read"),
    "ignores_signals": Handler(ignores_signals, "ignores signals"),
    "swallows": Handler(swallows, "swallows BaseException"),
    "children": Handler(children, "5 children", starts=5),
    "daemon": Handler(daemon, "daemon (setsid)", starts=1),
    "bare_daemon": Handler(bare_daemon, "daemon without environment", starts=1),
    "fork_storm": Handler(fork_storm, "fork storm", starts=STORM),
    "crowd": Handler(crowd, "200 descendants", starts=CROWD),
    "hog": Handler(hog, "memory hog", ("timeout", "memory")),
    "segfault": Handler(segfault, "segfault", ("crash",)),
    "exits": Handler(exits, "os._exit(0)", ("crash",)),
    "stopped": Handler(stopped, "stopped (SIGSTOP)"),
    "traced": Handler(traced, "held by a debugger", starts=1),
}
INNOCENT: dict[str, Callable[[], None]] = {"bystander": rest, "next": lambda: None, "brief": lambda: time.sleep(0.2)}
