"""The smallest runner: payload is a pickled (function of this module, arguments); the tests' side of `Boot.target`."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import msgspec

from stem_iso.errors import SoftTimeLimitExceeded
from stem_iso.isolate.job import FAILED, SUCCEEDED, Port, Runner
from stem_iso.outcome import TaskError

port: Port


class PickleRunner:
    ready = b"ready"

    def define(self, definition: bytes) -> object:
        return globals()[definition.decode()]

    def run(self, entry: Any, payload: bytes, given: Port) -> tuple[int, bytes]:
        global port
        port = given
        try:
            args = pickle.loads(payload)
            with given.armed():
                result = entry(*args)
            return SUCCEEDED, pickle.dumps(result)
        except BaseException as error:
            told = TaskError(type=type(error).__name__, message=str(error), traceback=traceback.format_exc())
            return FAILED, msgspec.msgpack.encode((told, (type(error).__name__,)))


def boot(payload: bytes, given: Port) -> Runner:
    if payload == b"fail":
        raise RuntimeError("this import does not work")
    if payload == b"die":
        os._exit(3)
    if payload == b"slow":
        time.sleep(100)
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


def leave(code: int) -> None:
    os._exit(code)


def sys_exit() -> None:
    sys.exit(3)


def segfault() -> None:
    import ctypes

    ctypes.string_at(0)


def say(text: str) -> None:
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


def ask(text: bytes) -> bytes:
    return port.ask(text)


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
