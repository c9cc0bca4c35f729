"""The application of the tests that start workers by command. Each handler writes a pid that a test can look for."""

from __future__ import annotations

import os
import time
from pathlib import Path

from stem_iso import Stem, TaskContext
from tests.isolate import handlers

app = Stem(os.environ.get("STEM_ISO_TEST_BROKER", "sqlite:///command.db"), default_visibility_timeout=30)


@app.task(name="child", isolate=True)
def child(ledger: str) -> None:
    handlers.child(ledger)


@app.task(name="daemon", isolate=True)
def daemon(ledger: str) -> None:
    handlers.daemon(ledger)


@app.task(name="spin", isolate=True)
def spin(ledger: str) -> None:
    handlers.write_pid_and_spin(ledger)


@app.task(name="c_loop", isolate=True)
def c_loop(ledger: str) -> None:
    handlers.write_pid_and_c_loop(ledger)


@app.task(name="nap", isolate=True)
def nap(context: TaskContext, ledger: str, seconds: float) -> int:
    handlers.append(ledger, f"start {os.getpid()}")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        context.heartbeat()
        time.sleep(0.01)
    handlers.append(ledger, "end")
    return context.attempt


@app.task(name="once", isolate=True, acks_late=False)
def once(ledger: str) -> None:
    handlers.append(ledger, f"start {os.getpid()}")
    time.sleep(1000)


@app.task(name="echo", isolate=True)
def echo(value: int) -> int:
    return value


@app.task(name="inline")
async def inline(value: int) -> int:
    return value


@app.task(name="where", isolate=True)
def where() -> dict[str, str]:
    return {"secret": os.environ.get("STEM_ISO_TEST_SECRET", ""), "title": Path("/proc/self/cmdline").read_text().strip("\0 ")}
