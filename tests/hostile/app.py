"""The hostile handlers, and innocent ones that run beside them."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from entrypoints.hostile import app
from stem_iso import TaskContext

__all__ = ["app", "echo", "hold_the_gil", "neighbour"]


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


@app.task(name="innocent.hold_the_gil")
def hold_the_gil(length: int) -> tuple[float, float]:
    """An inline handler in a regular expression that keeps the GIL for a time that doubles with `length`; from when to when (monotonic)."""
    began = time.monotonic()
    re.fullmatch(r"(a+)+$", "a" * length + "b")
    return began, time.monotonic()
