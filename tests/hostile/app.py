"""The hostile handlers, and innocent ones that run beside them and after them."""

from __future__ import annotations

import decimal
import os
import re
import resource
import signal
import sys
import time
import warnings
from pathlib import Path

from entrypoints.hostile import app
from stem_iso import TaskContext

__all__ = ["app", "echo", "hold_the_gil", "neighbour", "overdue", "state"]


@app.task(name="innocent.echo", isolate=True)
def echo(value: int) -> int:
    return value


@app.task(name="innocent.neighbour", isolate=True)
def neighbour(context: TaskContext, stop: str) -> tuple[int, int, int]:
    """Works until the file `stop` is there; its pid at the start and at the end, and its attempt."""
    before = os.getpid()
    Path(stop).with_suffix(".up").touch()
    while not Path(stop).exists():
        context.heartbeat()
        time.sleep(0.02)
    return before, os.getpid(), context.attempt


@app.task(name="innocent.overdue", isolate=True, hard_time_limit=0.3)
def overdue(context: TaskContext) -> None:
    """Says when it began, and reaches its limit: whoever is late for it is late because of others."""
    context.progress(0, data=time.time())
    time.sleep(60)


@app.task(name="innocent.state", isolate=True)
def state() -> dict[str, str]:
    """What a handler can feel of the process that it runs in: the same for each call, whoever was there before."""
    print("innocent.state prints")
    umask = os.umask(0)
    os.umask(umask)
    return {
        "cwd": os.getcwd(),
        "umask": oct(umask),
        "environment": repr(sorted(os.environ.items())),
        "blocked": repr(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        "handlers": repr([str(signal.getsignal(number)).partition(" at 0x")[0] for number in sorted(signal.valid_signals())]),
        "alarm": repr(signal.getitimer(signal.ITIMER_REAL)[0] > 0),
        "limits": repr([resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")]),
        "streams": repr(
            [(type(stream).__name__, stream.fileno(), os.fstat(stream.fileno()).st_mode) for stream in (sys.stdout, sys.stderr)]
        ),
        "decimal": repr(decimal.getcontext().prec),
        "warnings": repr(warnings.filters[:1]),
        "tracing": repr(sys.gettrace()),
        "recursion": repr(sys.getrecursionlimit()),
    }


@app.task(name="innocent.hold_the_gil")
def hold_the_gil(length: int) -> tuple[float, float]:
    """An inline handler in a regular expression that keeps the GIL for a time that doubles with `length`; from when to when (monotonic)."""
    began = time.monotonic()
    re.fullmatch(r"(a+)+$", "a" * length + "b")
    return began, time.monotonic()
