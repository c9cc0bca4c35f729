"""The application of the tests that start workers by command. Each handler writes a pid that a test can look for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from stem_iso import Stem, TaskContext
from tests.isolate import changes, handlers
from tests.worker import guests
from tests.worker import handlers as worker_handlers

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


@app.task(name="leave", isolate=True)
def leave(code: int) -> None:
    os._exit(code)


@app.task(name="shell", isolate=True)
def shell(line: str) -> int:
    return subprocess.run(line, shell=True).returncode


@app.task(name="inline.shell")
def inline_shell(line: str) -> int:
    return subprocess.run(line, shell=True).returncode


@app.task(name="inline")
async def inline(value: int) -> int:
    return value


@app.task(name="where", isolate=True)
def where() -> dict[str, str]:
    return {"secret": os.environ.get("STEM_ISO_TEST_SECRET", ""), "title": Path("/proc/self/cmdline").read_text().strip("\0 ")}


# -- inline: in a process of their own, by command -------------------------------------------------------------------------------------


def _place(context: TaskContext) -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "session": os.getsid(0),
        "title": Path("/proc/self/cmdline").read_text().strip("\0 "),
        "stdin": os.readlink("/proc/self/fd/0"),
        "secret": os.environ.get("STEM_ISO_TEST_SECRET", ""),
        "hooked": started,
        "isolated": context.isolated,
    }


@app.task(name="inline.where")
def inline_where(context: TaskContext) -> dict[str, object]:
    return _place(context)


@app.task(name="inline.where_async")
async def inline_where_async(context: TaskContext) -> dict[str, object]:
    return _place(context)


started: list[int] = []


@app.on_isolate_start
def note_start() -> None:
    started.append(os.getpid())


app.task(name="look", isolate=True)(worker_handlers.look)
app.task(name="inline.look")(worker_handlers.look)
app.task(name="inline.look_async")(worker_handlers.look_async)


@app.task(name="inline.wait")
def inline_wait(ledger: str, gate: str) -> int:
    handlers.append(ledger, f"start {os.getpid()}")
    worker_handlers.wait_for(gate)
    return os.getpid()


@app.task(name="inline.wait_async")
async def inline_wait_async(ledger: str, gate: str) -> int:
    handlers.append(ledger, f"start {os.getpid()}")
    while not os.path.exists(gate):
        await asyncio.sleep(0.001)
    return os.getpid()


@app.task(name="inline.halves")
def inline_halves(mine: str, others: str) -> None:
    """Half a line, and the other half when the other call has printed its first."""
    print("first half", end=" ")
    Path(mine).touch()
    worker_handlers.wait_for(others)
    print("second half")
    app_log.info("logged by a handler")
    subprocess.run(["echo", "said by a subprocess"], check=True)


app_log = logging.getLogger("users.own")


@app.task(name="inline.regex", soft_time_limit=0.3)
def inline_regex(ledger: str) -> None:
    handlers.append(ledger, f"start {os.getpid()}")
    re.fullmatch(r"(a+)+$", "a" * 50 + "b")


@app.task(name="inline.segfault")
def inline_segfault() -> None:
    print("last words", file=sys.stderr)
    handlers.segfault()


@app.task(name="inline.swallow", soft_time_limit=0.1, hard_time_limit=0.3)
async def inline_swallow(ledger: str) -> None:
    handlers.append(ledger, f"start {os.getpid()}")
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


@app.task(name="inline.sleep")
async def inline_sleep(ledger: str) -> None:
    handlers.append(ledger, f"start {os.getpid()}")
    await asyncio.sleep(3600)


@app.task(name="inline.stubborn")
async def inline_stubborn(ledger: str) -> None:
    handlers.append(ledger, f"start {os.getpid()}")
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


@app.task(name="inline.block", hard_time_limit=0.3)
async def inline_block(ledger: str) -> None:
    handlers.append(ledger, f"start {os.getpid()}")
    handlers.spin()


@app.task(name="inline.displaced")
async def inline_displaced(ledger: str, gate: str) -> int:
    """Ends only where the gate is open when it begins."""
    open_already = os.path.exists(gate)
    handlers.append(ledger, f"start {os.getpid()}")
    if not open_already:
        await asyncio.sleep(3600)
    return os.getpid()


@app.task(name="inline.offspring")
def inline_offspring(ledger: str, daemon: str) -> None:
    subprocess.Popen([sys.executable, "-c", handlers.DAEMON, daemon])
    handlers.child(ledger)


@app.task(name="inline.ask")
async def inline_ask(context: TaskContext, value: int) -> list[int]:
    """Several questions at once, of one call among many."""
    context.progress(10)
    context.meta["asked"] = value
    context.heartbeat()
    children = await asyncio.gather(*(context.aenqueue("echo", {"value": value * 10 + number}) for number in range(3)))
    await context.aextend_lease(60)
    context.extend_lease(60)
    return [await asyncio.to_thread(app.handle(child.id).status) is not None and value for child in children]


# -- what harms those beside it --------------------------------------------------------------------------------------------------------

app.task(name="guest.upload")(guests.upload)
app.task(name="guest.upload_async")(guests.upload_async)
app.task(name="guest.end")(guests.end)
app.task(name="guest.log")(guests.log)
app.task(name="guest.end_part")(guests.end_part)
app.task(name="guest.in_thread")(guests.in_thread)
app.task(name="change.where")(changes.where)
app.task(name="change.where_isolated", isolate=True)(changes.where)
app.task(name="change.change")(changes.change)
app.task(name="change.change_isolated", isolate=True)(changes.change)
app.task(name="change.fork")(changes.fork)
app.task(name="change.fork_async")(changes.fork_async)
app.task(name="change.fork_isolated", isolate=True)(changes.fork)
app.task(name="change.fork_async_isolated", isolate=True)(changes.fork_async)
app.task(name="change.fork_and_wait")(changes.fork_and_wait)


@app.task(name="change.where_async")
async def where_async() -> object:
    return changes.where()


@app.task(name="change.change_async")
async def change_async(name: str) -> int:
    return changes.change(name)
