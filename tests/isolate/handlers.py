"""The smallest runner: payload is a pickled (function of this module, arguments); the tests' side of `Boot.target`."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from stem_iso.errors import SoftTimeLimitExceeded
from stem_iso.isolate import wire
from stem_iso.isolate.interfaces import FAILED, SUCCEEDED, CorePort, Runner
from stem_iso.isolate.shared_row import Page
from stem_iso.outcome import TaskError
from tests.isolate.counting import BEGUN, DONE, REACHED, Counters
from tests.isolate.escapes import (  # noqa: F401  found by name
    be_traced_by_a_daemon,
    become_another_user,
    child_hides_late,
    child_in_a_frozen_file,
    child_of_another_user,
    clone_a_sibling,
    fork_past_the_isolate,
    leave_a_daemon_without_its_first_thread,
    look_at_a_frozen_file,
    ten_children,
    undumpable_before_the_next,
    undumpable_child,
    undumpable_hog,
    undumpable_with_a_child,
    wait_for,
)
from tests.isolate.hogs import child_devours, devour, devour_noting, pages_are_shared, slowly  # noqa: F401  found by name
from tests.isolate.pinned import affinity, affinity_and_wait, affinity_of_all  # noqa: F401  found by name

port: CorePort


def count_what_is_reached(path: str) -> None:
    """From now on the file says of each call whether this isolate was about to store that it had started."""
    counters = Counters(path)
    stored: Any = Page.started.fset

    def store(page: Page, call: int) -> None:
        counters.add(call, REACHED)
        stored(page, call)

    Page.started = Page.started.setter(store)  # type: ignore[method-assign, assignment]


class PickleRunner:
    ready = b"ready"

    def define(self, definition: bytes) -> object:
        return globals()[definition.decode()]

    def run(self, entry: Any, payload: bytes, given: CorePort) -> tuple[int, bytes]:
        global port
        port = given
        try:
            args = pickle.loads(payload)
            with given.armed():
                result = entry(*args)
            return SUCCEEDED, pickle.dumps(result)
        except BaseException as error:
            failure = TaskError(type=type(error).__name__, message=str(error), traceback=traceback.format_exc())
            return FAILED, msgspec.msgpack.encode((failure, (type(error).__name__,)))


def boot(payload: bytes, given: CorePort) -> Runner:
    if payload == b"fail":
        raise RuntimeError("this import does not work")
    if payload == b"die":
        os._exit(3)
    if payload.startswith(b"count "):
        count_what_is_reached(payload.removeprefix(b"count ").decode())
    if payload == b"slow":
        time.sleep(100)
    if payload == b"thread":  # as native libraries do when they are imported
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    if payload == b"logs":
        logging.getLogger("at boot").warning("a model was loaded")
    return PickleRunner()


def echo(value: Any) -> Any:
    return value


def pid() -> int:
    return os.getpid()


def spin() -> None:
    while True:
        pass


def c_loop() -> None:
    sum(range(10**12))


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def fail(text: str) -> None:
    raise ValueError(text)


def kill_itself() -> None:
    os.kill(os.getpid(), 9)


def die_after(seconds: float, how: str) -> None:
    time.sleep(seconds)
    if how == "kill_itself":
        kill_itself()
    leave(3)


def read_file(path: str) -> str:
    return Path(path).read_text()


def leave(code: int) -> None:
    os._exit(code)


def sys_exit() -> None:
    sys.exit(3)


def segfault() -> None:
    import ctypes

    ctypes.string_at(0)


def print_text(text: str) -> None:
    print(text)
    print(text, file=sys.stderr)


def flood(size: int) -> None:
    os.write(1, b"x" * size)


def child(ledger: str) -> None:
    process = subprocess.Popen(["sleep", "1000"])
    Path(ledger).write_text(str(process.pid))
    while True:
        pass


DAEMON = """
import os, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
open(sys.argv[1], 'w').write(str(os.getpid()))
time.sleep(1000)
"""


def daemon(ledger: str) -> None:
    subprocess.run([sys.executable, "-c", DAEMON, ledger], env={})
    while not Path(ledger).exists() or not Path(ledger).read_text():
        time.sleep(0.001)
    while True:
        pass


def daemon_and_return(ledger: str) -> str:
    subprocess.run([sys.executable, "-c", DAEMON, ledger], env={})
    while not Path(ledger).exists() or not Path(ledger).read_text():
        time.sleep(0.001)
    return "done"


def thread_and_return() -> str:
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    return "done"


def polite() -> str:
    try:
        while True:
            pass
    except SoftTimeLimitExceeded:
        return "cleaned up"


def request(text: bytes) -> bytes:
    return port.request(text)


def flood_until(gate: str, how: str) -> str:
    """As many words as it can say until somebody touches the gate."""
    log = logging.getLogger("handlers")
    while not os.path.exists(gate):
        for _ in range(2_000):
            match how:
                case "log":
                    log.warning("again")
                case "beat":
                    port.beat()
                case "send":
                    port.send(b"x")
                case "request":
                    port.request(b"x")
        if how == "print":
            os.write(1, b"\n" * 1_000_000)
        elif how == "stack":
            for fd in range(3, 64):
                with suppress(OSError):
                    if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
                        os.write(fd, b"x" * 65536)
    return "done"


def forge(kind: int, payload: bytes, size: int = -1) -> None:
    """A frame of this call that the port would not write; `size`: what its header says, if not the truth."""
    here: Any = port
    whole = wire.HEADER.pack(wire.MAGIC, kind, len(payload) if size < 0 else size, here._call) + payload
    here._pipe.send_all(whole)
    spin()


def garbage() -> None:
    for fd in range(3, 64):
        try:
            os.write(fd, b"\xff" * 100)
        except OSError:
            continue
    spin()


def ignore_signals() -> None:
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    spin()


def regex() -> None:
    import re

    re.fullmatch(r"(a+)+$", "a" * 60 + "b")


def sleep_long() -> None:
    time.sleep(1000)


def swallow() -> None:
    while True:
        try:
            while True:
                pass
        except BaseException:
            continue


def daemon_and_crash(ledger: str) -> None:
    daemon_and_return(ledger)
    os._exit(1)


def last_words(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
    os._exit(1)


def write_pid_and_spin(ledger: str) -> None:
    Path(ledger).write_text(str(os.getpid()))
    spin()


def write_pid_and_crash(ledger: str, go: str) -> None:
    Path(ledger).write_text(str(os.getpid()))
    wait_for(go)
    os._exit(1)


def write_pid_and_sleep(ledger: str, seconds: float) -> None:
    Path(ledger).write_text(str(os.getpid()))
    time.sleep(seconds)


def stop_itself() -> None:
    import signal

    os.kill(os.getpid(), signal.SIGSTOP)


def close_descriptors() -> None:
    os.closerange(0, 1024)


def beat(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        port.beat()
        time.sleep(0.05)


def log(text: str) -> None:
    logging.getLogger("handlers").warning(text)


def when() -> float:
    now = time.monotonic()
    time.sleep(0.001)
    return now


def grow(size: int) -> None:
    globals()["kept"] = b"x" * size


def beat_and_print(ledger: str, text: str) -> None:
    while not Path(ledger).exists():
        time.sleep(0.001)
    port.beat()
    time.sleep(0.05)  # for the engine to wake up by the beat alone
    print(text, flush=True)


def send_in_a_thread_until_raised() -> str:
    raised: list[BaseException] = []

    def send() -> None:
        try:
            while True:
                port.send(b"x" * 1000)
        except BaseException as error:
            raised.append(error)

    threading.Thread(target=send, daemon=True).start()
    try:
        time.sleep(10)
    except SoftTimeLimitExceeded:
        return f"raised here, there {raised}"
    return f"not raised here, there {raised}"


def environment() -> tuple[str, dict[str, str]]:
    return Path("/proc/self/environ").read_text(), dict(os.environ)


def surroundings() -> dict[str, Any]:
    import signal

    return {
        "stdin": os.readlink("/proc/self/fd/0"),
        "pid": os.getpid(),
        "session": os.getsid(0),
        "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "title": Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").decode(),
        "descriptors": {
            fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")
        },
        "modules": sorted(sys.modules),
    }


def terminate_a_child() -> int:
    process = subprocess.Popen(["sleep", "100"])
    process.terminate()
    return process.wait()


def terminate_a_fork() -> int:
    import signal

    pid = os.fork()
    if pid == 0:
        time.sleep(100)
        os._exit(0)
    os.kill(pid, signal.SIGTERM)
    return os.waitpid(pid, 0)[1]


def write_pid_and_c_loop(ledger: str) -> None:
    Path(ledger).write_text(str(os.getpid()))
    c_loop()


counters: dict[str, Counters] = {}  # opened once in an isolate: a file opened in each call would be a part of what is measured


def counted(path: str) -> Counters:
    if path not in counters:
        counters[path] = Counters(path)
    return counters[path]


def count_until(path: str, number: int, end: float) -> int:
    """Count that it began, work until monotonic `end`, count that it is done, and reply."""
    counted(path).add(number, BEGUN)
    while time.monotonic() < end:
        pass
    counted(path).add(number, DONE)
    return number


def count_until_limit(path: str, number: int, offset: float) -> int:
    assert port.hard_deadline is not None
    return count_until(path, number, port.hard_deadline + offset)


def count_for(path: str, number: int, seconds: float) -> int:
    return count_until(path, number, time.monotonic() + seconds)


def company(kind: str) -> None:
    """A hostile handler that is not alone, by its name in `entrypoints.hostile`."""
    from entrypoints.hostile import company, storms, trace

    getattr(company, kind, getattr(storms, kind, None))(trace.Trace(None, None))


def until(ledger: str, number: int, end: float) -> int:
    """Work until monotonic `end`, write a line, and reply."""
    while time.monotonic() < end:
        pass
    append(ledger, f"end {number}")
    return number


def random_length(ledger: str, number: int, seconds: float) -> int:
    append(ledger, f"start {number}")
    return until(ledger, number, time.monotonic() + seconds)


def append(ledger: str, line: str) -> None:
    fd = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line.encode() + b"\n")
    os.close(fd)
