"""What the tests of `IsolatePool` run: plain functions, as a user would have them."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from stem_iso.isolate.child.setup import FORCED_STACK_SIGNAL, NUDGE_SIGNAL, RAISE_SIGNAL, STACK_SIGNAL

seen: list[Any] = []


def pid() -> int:
    return os.getpid()


def double(value: Any) -> Any:
    return value + value


def echo(value: Any) -> Any:
    return value


def keywords(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def hold(size: int, seconds: float = 60.0) -> int:
    data = b"x" * size
    time.sleep(seconds)
    return len(data)


def spin() -> None:
    while True:
        pass


def call_python_from_c(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sorted(range(20), key=lambda number: -number)
        re.sub("a", lambda found: "b", "aaabb")
        sum(number for number in range(20))


def deaf_to_the_stack_signal(how: str) -> None:
    if how == "blocks":
        signal.pthread_sigmask(signal.SIG_BLOCK, [STACK_SIGNAL, FORCED_STACK_SIGNAL])
    else:
        for number in (STACK_SIGNAL, FORCED_STACK_SIGNAL):
            signal.signal(number, signal.SIG_IGN if how == "ignores" else lambda number, frame: spin())
    spin()


def write_pid_and_spin(ledger: str, *rest: Any) -> None:
    Path(ledger).write_text(str(os.getpid()))
    spin()


def append(ledger: str, text: str) -> None:
    fd = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)


def append_digest(ledger: str, data: bytes) -> None:
    append(ledger, hashlib.sha256(data).hexdigest())


def wait_for(path: str, value: Any = None) -> Any:
    while not os.path.exists(path):
        time.sleep(0.001)
    return value


def append_and_wait(ledger: str, gate: str, text: str) -> None:
    """All but the call of "0" end when the gate is there."""
    append(ledger, text)
    if text != "0":
        wait_for(gate)


def wait_for_and_exit(path: str) -> None:
    wait_for(path)
    sys.exit(3)


def fail(*args: Any) -> None:
    raise ValueError(*args)


def crash(*_: Any) -> None:
    os._exit(7)


def leave_by_exit() -> None:
    sys.exit(3)


def print_text(text: str) -> None:
    print(text)
    print(text, file=sys.stderr)


def log(text: str) -> None:
    logging.getLogger("users.own").info("info: %s", text)
    logging.getLogger("users.own").debug("debug: %s", text)


def keep(value: Any) -> int:
    seen.append(value)
    return len(seen)


def kept() -> Any:
    return seen[0]


def unpicklable() -> Any:
    return threading.Lock()


def of_bytes(size: int) -> bytes:
    return b"x" * size


def sum_and_write(buffer: Any) -> tuple[int, bool]:
    """Bytes of any buffer, and whether it can be written to."""
    view = memoryview(buffer).cast("B")
    writable = not view.readonly
    if writable:
        view[0] = 255
    return len(view), writable


class Block:
    """Holds a buffer that travels out of band, as arrays do."""

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer

    def __reduce_ex__(self, protocol: Any) -> Any:
        import pickle

        return Block, (pickle.PickleBuffer(self.buffer),)


class LoadsNowhere:
    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise RuntimeError("it cannot be loaded")


def loads_nowhere() -> Any:
    return LoadsNowhere()


class DiesWhenFreed:
    def __del__(self) -> None:
        if _in_isolate():
            os._exit(9)


class DiesWhenLoaded:
    def __reduce__(self) -> Any:
        return os._exit, (5,)


def _in_isolate() -> bool:
    return "isolate.child.main" in " ".join(sys.modules) and sys.stdin is not None and os.readlink("/proc/self/fd/0") == "/dev/null"


class DiesWhenPickled:
    def __reduce__(self) -> Any:
        os._exit(6)


def dies_when_pickled() -> Any:
    return DiesWhenPickled()


# -- errors ----------------------------------------------------------------------------------------------------------------------------


class IsFalse(Exception):
    def __len__(self) -> int:
        return 0


def raise_false() -> None:
    raise IsFalse


class Plain(Exception):
    """Survives everything."""


def raise_plain() -> None:
    raise Plain("plain")


class TwoArguments(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


class OddReduce(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("no")


class OddText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class HoldsALock(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class TurnsIntoAnother(Exception):
    def __reduce__(self) -> Any:
        return ValueError, ("another",)


def raise_two() -> None:
    raise TwoArguments(1, 2)


def raise_odd_reduce() -> None:
    raise OddReduce("the text")


def raise_odd_text() -> None:
    raise OddText


def raise_lock() -> None:
    raise HoldsALock


def raise_another() -> None:
    raise TurnsIntoAnother("first")


def raise_local() -> None:
    class Local(Exception):
        pass

    raise Local("made in a function")


def raise_long() -> None:
    raise ValueError("x" * (100 << 20))


def raise_with_cause_and_notes() -> None:
    try:
        raise KeyError("inner")
    except KeyError as inner:
        error = ValueError("outer", 2)
        error.add_note("a note")
        raise error from inner


def raise_circle() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


def raise_group() -> None:
    inner = ValueError("member")
    inner.__cause__ = OSError(2, "its cause")
    raise ExceptionGroup("all", [inner, ExceptionGroup("nested", [TypeError("deep")])])


def raise_group_with_a_lock() -> None:
    raise ExceptionGroup("all", [ValueError("plain"), HoldsALock()])


# -- processes -------------------------------------------------------------------------------------------------------------------------


def nested(value: int) -> int:
    from stem_iso import IsolatePool

    with IsolatePool(1, spares=0) as pool:
        return pool.submit(double, value).result()


def with_subprocess() -> str:
    import subprocess

    return subprocess.run([sys.executable, "-c", "print(len(input()))"], input="four", capture_output=True, text=True, check=True).stdout


def with_multiprocessing() -> list[int]:
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(double, [1, 2, 3])


def until_soft_limit() -> str:
    from stem_iso import SoftTimeLimitExceeded

    try:
        spin()
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "never"


def blocked(how: str) -> None:
    """In a system call that nothing ends, of a kind that the kernel restarts where it may."""
    if how == "read":
        os.read(os.pipe()[0], 1)
    elif how == "recv":
        ours, theirs = socket.socketpair()
        ours.recv(theirs.fileno() and 1)
    elif how == "wait":
        subprocess.run(["sleep", "60"])
    elif how == "lock":
        threading.Event().wait()


def blocked_after_signals_were_lost(count: int) -> None:
    """So many signals of the soft limit are taken away, as where each comes just before a system call that blocks."""
    own = (RAISE_SIGNAL, NUDGE_SIGNAL)
    signal.pthread_sigmask(signal.SIG_BLOCK, own)
    for _ in range(count):
        signal.sigwait(own)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, own)
    blocked("read")


def first_word(line: str) -> str:
    return next(iter(line.split()))


def print_lines(count: int) -> None:
    for number in range(count):
        print("line", number)


def pid_beside_others(folder: str, processes: int) -> int:
    """Ends when calls have begun in so many processes."""
    Path(folder, str(os.getpid())).touch()
    while len(os.listdir(folder)) < processes:
        time.sleep(0.005)
    return os.getpid()
