"""What calls leave changed in their process, and a look at all of it. Isolates import this module."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import decimal
import faulthandler
import fcntl
import gc
import io
import locale
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


def look() -> dict[str, Any]:
    """As data, so that two looks can be compared, also of two processes."""
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        folder = "deleted"
    return {
        "timers": [signal.getitimer(timer) for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)],
        "mask": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        "handlers": {int(number): repr(signal.getsignal(number)).partition(" at 0x")[0] for number in signal.valid_signals()},
        "streams": [type(each).__name__ for each in (sys.stdin, sys.stdout, sys.stderr)],
        "open": [sys.stdout.closed, sys.stderr.closed],
        "flags": [fcntl.fcntl(fd, fcntl.F_GETFL) for fd in (0, 1, 2)],
        "tenant": tenant.get(),
        "precision": decimal.getcontext().prec,
        "folder": folder,
        "umask": _umask(),
        "environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "zone": time.tzname,
        "locale": locale.setlocale(locale.LC_ALL),
        "limits": [resource.getrlimit(number) for number in range(16)],
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "cpus": sorted(os.sched_getaffinity(0)),
        "users": [os.geteuid(), os.getegid()],
        "tracing": [sys.gettrace(), sys.getprofile(), threading.gettrace(), threading.getprofile()],
        "filters": [str(each) for each in warnings.filters],
        "path": list(sys.path),
        "hooks": [repr(sys.excepthook).partition(" at 0x")[0], repr(threading.excepthook).partition(" at 0x")[0]],
        "numbers": [sys.getrecursionlimit(), sys.getswitchinterval(), gc.isenabled(), gc.get_threshold(), socket.getdefaulttimeout()],
        "faulthandler": faulthandler.is_enabled(),
    }


def _umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


def where() -> tuple[int, dict[str, Any]]:
    return os.getpid(), look()


def sleep_and_print(seconds: float) -> str:
    time.sleep(seconds)
    print("fine")
    return "fine"


def _prepare_folder() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)


def _zone() -> None:
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()


def _replace_stdout() -> None:
    sys.stdout = io.StringIO()


def _hook() -> None:
    sys.excepthook = threading.excepthook = print  # type: ignore[assignment]


def _block_with_one_pending() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    os.kill(os.getpid(), signal.SIGUSR2)


def _to_file() -> None:
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)


def _nonblocking() -> None:
    os.set_blocking(1, False)


RESTORED: dict[str, Callable[[], object]] = {
    "alarm": lambda: signal.alarm(1),
    "repeating timer": lambda: signal.setitimer(signal.ITIMER_PROF, 0.5, 0.5),
    "blocked signals": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()),
    "signal handler": lambda: signal.signal(signal.SIGUSR1, lambda *_: None),
    "ignored signal": lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL),
    "handler of ours": lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    "stdout replaced": _replace_stdout,
    "stdin closed": lambda: setattr(sys, "stdin", None),
    "not blocking": _nonblocking,
    "context variable": lambda: tenant.set("ann"),
    "decimal context": lambda: setattr(decimal.getcontext(), "prec", 3),
    "folder": lambda: os.chdir("/"),
    "deleted folder": _prepare_folder,
    "umask": lambda: os.umask(0o077),
    "environment": lambda: os.environ.update(STEM_ISO_TEST_LEFT="1", PATH="/nowhere"),
    "environment less": lambda: os.environ.pop("PATH"),
    "time zone": _zone,
    "locale": lambda: locale.setlocale(locale.LC_ALL, "C"),
    "limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (50, resource.getrlimit(resource.RLIMIT_NOFILE)[1])),
    "core limit": lambda: resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1])),
    "trace": lambda: sys.settrace(lambda *_: None),
    "profile": lambda: sys.setprofile(lambda *_: None),
    "threads' trace": lambda: threading.settrace(lambda *_: None),
    "warnings": lambda: warnings.simplefilter("error"),
    "path": lambda: sys.path.insert(0, "/nowhere"),
    "hooks": _hook,
    "recursion": lambda: sys.setrecursionlimit(300),
    "switch interval": lambda: sys.setswitchinterval(1),
    "no gc": gc.disable,
    "socket timeout": lambda: socket.setdefaulttimeout(0.01),
    "affinity": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
}

REPLACED: dict[str, Callable[[], object]] = {
    "stdout closed": lambda: sys.stdout.close(),
    "descriptor closed": lambda: os.close(2),
    "descriptor replaced": _to_file,
    "pending signal": _block_with_one_pending,
    "faulthandler": faulthandler.disable,
    "soft limit's handler": lambda: signal.signal(signal.SIGRTMIN + 9, signal.SIG_DFL),
}


def change(name: str) -> int:
    {**RESTORED, **REPLACED}[name]()
    return os.getpid()


def change_and_fail(name: str) -> None:
    change(name)
    raise ValueError(name)


def watchdog() -> int:
    faulthandler.dump_traceback_later(0.3, exit=True)
    return os.getpid()


def become_nobody() -> int:
    os.setegid(65534)
    os.seteuid(65534)
    return os.getpid()


# -- what start-up sets up -------------------------------------------------------------------------------------------------------------


def prepare() -> None:
    tenant.set("start-up")
    decimal.getcontext().prec = 50
    os.environ["STEM_ISO_TEST_PREPARED"] = "1"
    os.umask(0o027)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    signal.setitimer(signal.ITIMER_VIRTUAL, 1000, 1000)


def start_thread() -> None:
    threading.Thread(target=threading.Event().wait, daemon=True).start()


def start_child() -> None:
    subprocess.Popen(["sleep", "1000"])


def start_child_that_ends() -> None:
    global ending
    ending = subprocess.Popen(["sh", "-c", "exit 3"])


ending: subprocess.Popen[bytes]


def how_it_ended() -> int:
    return ending.wait(30)


def leave_thread() -> int:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    return os.getpid()


def leave_child() -> int:
    subprocess.Popen(["sleep", "1000"])
    return os.getpid()


# -- forks that come back --------------------------------------------------------------------------------------------------------------


def fork(how: str, path: str) -> tuple[int, str]:
    """The exit code of a child that leaves the handler like this, and what `path` holds then."""
    print("before the fork", end="")
    atexit.register(Path(path).write_text, "atexit ran")
    child = os.forkpty()[0] if how == "pty" else os.fork()
    if child == 0:
        print(f"child of {how}", flush=how == "thread")
        if how == "exit":
            sys.exit(5)
        if how == "text":
            sys.exit("usage: give a file")
        if how == "raise":
            raise ValueError("raised in the child")
        if how == "thread":
            threading.Thread(target=_write_late, args=(path,)).start()
        return 0, "child"
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, Path(path).read_text() if os.path.exists(path) else ""


def _write_late(path: str) -> None:
    time.sleep(0.1)
    Path(path).write_text("the thread ended")


async def fork_async(how: str, path: str) -> tuple[int, str]:
    return fork(how, path)


async def fork_and_wait(path: str) -> int:
    """The child awaits something, which only its parent's loop could bring."""
    child = os.fork()
    if child == 0:
        await asyncio.sleep(0)
        Path(path).write_text("went on")
        return 0
    return await asyncio.to_thread(lambda: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def fork_by_library() -> list[Any]:
    """Children that end by themselves, as ever."""
    queue = multiprocessing.get_context("fork").SimpleQueue()
    process = multiprocessing.get_context("fork").Process(target=queue.put, args=("put by a child",))
    process.start()
    process.join()
    ran = subprocess.run(["echo", "ran"], preexec_fn=os.getpid, capture_output=True, text=True, check=True)
    return [queue.get(), process.exitcode, ran.stdout]


def disable_watch(i: int, ready: str, go: str) -> int:
    """Changes, at its end, what only a new process has as it was; all that run together end one after the other."""
    Path(f"{ready}{i}").touch()
    while not os.path.exists(go):
        time.sleep(0.01)
    time.sleep(0.04 * i)
    (faulthandler.disable if faulthandler.is_enabled() else faulthandler.enable)()
    return i
