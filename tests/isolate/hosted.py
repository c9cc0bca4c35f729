"""The smallest program for an inline host: a thread per call; and the tests' side of it."""

from __future__ import annotations

import ctypes
import logging
import os
import pickle
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stem_iso.isolate.child.output_routing import current
from stem_iso.isolate.engine.shared_host.supervisor import HostBoot
from stem_iso.isolate.interfaces import Answer, Boot, HostCaller, HostedJob, HostRunner, LimitNotice, Limits
from stem_iso.outcome import Failed, StopReason, Succeeded, TaskError
from tests.isolate.calling import Calls, Recorder, entry

callers: dict[int, HostCaller] = {}  # by thread: how a handler below finds who hears it


class ThreadHost:
    ready = b"ready"

    def define(self, definition: bytes) -> object:
        return globals()[definition.decode()]

    def begin(self, entry: Any, payload: bytes, limits: Limits, sent_at: float, caller: HostCaller) -> object:
        threading.Thread(target=self._run, args=(entry, payload, caller), daemon=True).start()
        return None

    def _run(self, entry: Any, payload: bytes, caller: HostCaller) -> None:
        callers[threading.get_ident()] = caller
        try:
            with caller.running():
                outcome: Any = Succeeded(pickle.dumps(entry(*pickle.loads(payload))))
        except BaseException as error:
            failure = TaskError(type=type(error).__name__, message=str(error), traceback=traceback.format_exc())
            outcome = Failed(failure, (type(error).__name__,))
        caller.ended(outcome)

    def stop(self, running: Any, reason: StopReason) -> None: ...

    def ping(self, pong: Callable[[], None]) -> None:
        pong()


def boot(payload: bytes) -> HostRunner:
    if payload == b"fail":
        raise RuntimeError("this import does not work")
    if payload == b"die soon":
        threading.Timer(0.01, os._exit, (9,)).start()
    return ThreadHost()


def hold(ledger: str, until: str) -> str:
    """Keeps the interpreter lock until a file is there."""
    Path(ledger).write_text("start\n")
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        while not posix_exists(until):
            pass
    finally:
        sys.setswitchinterval(before)
    return "held"


def posix_exists(path: str) -> bool:
    """Without letting go of the lock: `os.stat` would."""
    return _libc.access(path.encode(), 0) == 0


_libc = ctypes.PyDLL(None)


def pid() -> int:
    return os.getpid()


def wait(ledger: str, gate: str) -> int:
    with open(ledger, "a") as file:
        file.write("start\n")
    while not os.path.exists(gate):
        time.sleep(0.001)
    return os.getpid()


def request(text: bytes) -> bytes:
    arrived, answers = threading.Event(), []

    def answer(payload: bytes) -> None:
        answers.append(payload)
        arrived.set()

    callers[threading.get_ident()].on_message(text, answer)
    arrived.wait()
    return answers[0]


def ask_later(ledger: str, gate: str) -> bytes:
    wait(ledger, gate)
    return request(b"later")


def ask_twice_at_once(first: bytes, second: bytes) -> list[bytes]:
    answers: dict[int, bytes] = {}
    arrived = threading.Semaphore(0)

    def answerer(number: int) -> Answer:
        def answer(payload: bytes) -> None:
            answers[number] = payload
            arrived.release()

        return answer

    caller = callers[threading.get_ident()]
    caller.on_message(first, answerer(1))
    caller.on_message(second, answerer(2))
    caller.beat()
    arrived.acquire()
    arrived.acquire()
    return [answers[1], answers[2]]


def regex(ledger: str) -> None:
    Path(ledger).write_text("start\n")
    re.fullmatch(r"(a+)+$", "a" * 50 + "b")


def limit_reached_twice() -> None:
    caller = callers[threading.get_ident()]
    for _ in range(2):
        caller.limit_reached(LimitNotice(1.0, 1.0, "the host's own stack", level="soft"))


def print_text(text: str) -> None:
    print(text)
    print(text, file=sys.stderr)
    sys.stdout.buffer.write(b"bytes of " + text.encode() + b"\n")
    logging.getLogger("users").warning("%s logged", text)
    print("no newline", end="")


def print_from_a_thread_of_its_own(text: str) -> None:
    thread = threading.Thread(target=print, args=(text,))
    thread.start()
    thread.join()


def fork_and_print(text: str) -> int:
    child = os.fork()
    if child == 0:
        try:
            print(text, flush=True)
            callers[threading.get_ident()].beat()
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def flood(size: int) -> None:
    sys.stdout.write("x" * size)


def segfault() -> None:
    print("last words", file=sys.stderr)
    import ctypes

    ctypes.string_at(0)


def forge(kind: int, payload: bytes) -> None:
    call: Any = current.get()
    call._writer.write(kind, call._number, payload)
    threading.Event().wait()


def garbage() -> None:
    import socket

    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            with socket.socket(fileno=os.dup(fd)) as each:
                each.send(b"no frame, but long enough to be looked at")
        except OSError:
            continue
    threading.Event().wait()  # a reply that is complete would count, garbage before it or not


class HostCalls(Calls):
    """An engine whose calls run in the inline host."""

    def __init__(self, boot: bytes = b"", at_start: bool = False, **options: Any) -> None:
        host = HostBoot(Boot("tests.isolate.hosted:boot", boot, hosts=True), at_start)
        super().__init__(**{"size": 4, "spares": 0, "host": host, **options})

    def start(self, name: str, *args: Any, priority: int = 0, caller: Recorder | None = None, **limits: Any) -> Recorder:
        recorder = caller or Recorder()
        job = HostedJob(entry(name), pickle.dumps(args), title=f"test: {name}", limits=Limits(**limits), priority=priority)
        recorder.call = self.engine.submit(job, recorder)  # type: ignore[attr-defined]
        return recorder
