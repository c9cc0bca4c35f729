"""Handlers that behave as badly as they can, to be run by hand against a worker.

    python -m stem_iso.worker -A entrypoints.hostile:app
    stem-iso enqueue hostile.daemon -A entrypoints.hostile:app --args '{"ledger": "/tmp/pids"}' --wait

Each ends, the worker goes on, and none of the processes that they start outlives its task. Each takes `ledger`, a path to which those
processes append their pids, so that a test can look whether one survived.

    ends at its limit   loop sums regex sleep deaf swallow handlers flood children daemon forks subprocesses
    dies by itself      segfault exit_zero abort kill_group close_all
    fails               sys_exit unserialisable unpicklable mute big
    succeeds            threads garbage (or is called a crash: what it writes into its pipe costs it its isolate)
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypedDict

from stem_iso import Stem


class Limits(TypedDict):
    soft_time_limit: float
    hard_time_limit: float


app = Stem()
LIMITS: Limits = {"soft_time_limit": 0.1, "hard_time_limit": 0.2}
# What SIGKILL and SIGSTOP leave to a process.
SIGNALS = sorted(set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP})


def _record(ledger: str | None) -> None:
    """This process's pid, in one write, so that lines of many processes do not mix."""
    if ledger is not None:
        with open(ledger, "a", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")


def _fork(child: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(0)
    return pid


def _spin() -> NoReturn:
    while True:
        pass


# -- they go on for ever ---------------------------------------------------------------------------------------------------------------


@app.task(name="hostile.loop", isolate=True, **LIMITS)
def loop(ledger: str | None = None) -> None:
    _spin()


@app.task(name="hostile.sums", isolate=True, **LIMITS)
def sums(ledger: str | None = None) -> int:
    """C code that keeps the GIL."""
    return sum(range(10**12))


@app.task(name="hostile.regex", isolate=True, **LIMITS)
def regex(ledger: str | None = None) -> bool:
    """C code that keeps the GIL and looks for no signal."""
    return re.fullmatch(r"(a+)+$", "a" * 40 + "b") is not None


@app.task(name="hostile.sleep", isolate=True, **LIMITS)
def sleep(ledger: str | None = None) -> None:
    while True:
        time.sleep(3600)


@app.task(name="hostile.deaf", isolate=True, **LIMITS)
def deaf(ledger: str | None = None) -> None:
    """Blocks every signal that can be blocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    _spin()


@app.task(name="hostile.handlers", isolate=True, **LIMITS)
def handlers(ledger: str | None = None) -> None:
    """Replaces every signal handler by one that does nothing."""
    for number in SIGNALS:
        try:
            signal.signal(number, lambda *_: None)
        except OSError:
            continue
    _spin()


@app.task(name="hostile.swallow", isolate=True, soft_limit_action="raise", **LIMITS)
def swallow(ledger: str | None = None) -> None:
    """Swallows whatever is raised in it."""
    while True:
        try:
            _spin()
        except BaseException:
            continue


@app.task(name="hostile.flood", isolate=True, **LIMITS)
def flood(ledger: str | None = None) -> None:
    while True:
        print("x" * 4096)


# -- they are not alone ----------------------------------------------------------------------------------------------------------------


@app.task(name="hostile.children", isolate=True, **LIMITS)
def children(ledger: str | None = None, count: int = 3) -> None:
    """A small tree: each child has a child of its own, which sleeps."""

    def grandchild() -> None:
        _record(ledger)
        time.sleep(3600)

    def child() -> None:
        _record(ledger)
        _fork(grandchild)
        _spin()

    for _ in range(count):
        _fork(child)
    time.sleep(3600)


@app.task(name="hostile.daemon", isolate=True, **LIMITS)
def daemon(ledger: str | None = None) -> None:
    """A double-forked daemon in a session of its own, without a descriptor or a variable that could betray it."""

    def second() -> None:
        _record(ledger)
        os.closerange(0, 65536)
        os.execve(sys.executable, ["d", "-c", "import time; time.sleep(3600)"], {})

    def first() -> None:
        os.setsid()
        _fork(second)

    os.waitpid(_fork(first), 0)
    time.sleep(3600)


@app.task(name="hostile.forks", isolate=True, **LIMITS)
def forks(ledger: str | None = None) -> None:
    """A process that forks and exits, over and over: whoever looks finds another one."""

    def hop() -> None:
        for _ in range(10_000):  # bounded, in case nobody stops it
            _record(ledger)
            if os.fork():
                os._exit(0)

    _fork(hop)
    time.sleep(3600)


@app.task(name="hostile.subprocesses", isolate=True, **LIMITS)
def subprocesses(ledger: str | None = None) -> None:
    """Programs that read a stdin which never says anything."""
    for _ in range(2):
        child = subprocess.Popen(["sleep", "3600"], stdin=subprocess.PIPE, start_new_session=True)
        if ledger is not None:
            with open(ledger, "a", encoding="ascii") as file:
                file.write(f"{child.pid}\n")
    child.wait()


@app.task(name="hostile.threads", isolate=True, **LIMITS)
def threads(ledger: str | None = None) -> str:
    """Returns, and leaves threads behind that never end: its isolate is not used again."""
    for _ in range(3):
        threading.Thread(target=time.sleep, args=(3600,)).start()
    return "threads left behind"


# -- they die --------------------------------------------------------------------------------------------------------------------------


@app.task(name="hostile.segfault", isolate=True, **LIMITS)
def segfault(ledger: str | None = None) -> None:
    ctypes.string_at(0)


@app.task(name="hostile.exit_zero", isolate=True, **LIMITS)
def exit_zero(ledger: str | None = None) -> None:
    """Exit code 0, and yet no answer."""
    os._exit(0)


@app.task(name="hostile.abort", isolate=True, **LIMITS)
def abort(ledger: str | None = None) -> None:
    os.abort()


@app.task(name="hostile.kill_group", isolate=True, **LIMITS)
def kill_group(ledger: str | None = None) -> None:
    os.killpg(0, signal.SIGKILL)


@app.task(name="hostile.close_all", isolate=True, **LIMITS)
def close_all(ledger: str | None = None) -> None:
    """Closes every descriptor, so that it cannot answer."""
    os.closerange(0, 65536)


@app.task(name="hostile.garbage", isolate=True, **LIMITS)
def garbage(ledger: str | None = None) -> str:
    """Writes what nobody can read to every descriptor."""
    for number in range(256):
        try:
            os.write(number, b"\xff\x00garbage" * 64)
        except OSError:
            continue
    return "garbage written"


# -- they fail -------------------------------------------------------------------------------------------------------------------------


@app.task(name="hostile.sys_exit", isolate=True, **LIMITS)
def sys_exit(ledger: str | None = None) -> None:
    """A failure, not a death."""
    sys.exit(3)


@app.task(name="hostile.unserialisable", isolate=True, **LIMITS)
def unserialisable(ledger: str | None = None) -> Any:
    return object()


class Unpicklable(Exception):
    """Its class exists, and yet it cannot travel."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)
        self.closure = lambda: reason


@app.task(name="hostile.unpicklable", isolate=True, **LIMITS)
def unpicklable(ledger: str | None = None) -> None:
    raise Unpicklable(reason="it cannot travel")


class Mute(Exception):
    """Nobody can say what it says."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


@app.task(name="hostile.mute", isolate=True, **LIMITS)
def mute(ledger: str | None = None) -> None:
    raise Mute


@app.task(name="hostile.big", isolate=True, soft_time_limit=9, hard_time_limit=10)
def big(ledger: str | None = None, size: int = 200_000_000) -> bytes:
    """A result larger than any broker takes."""
    return bytes(size)
