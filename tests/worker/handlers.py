"""What the workers under test run. Isolates import this module; each test declares what it needs on an application of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from stem_iso import TaskContext
from stem_iso.errors import PayloadTooLarge, RemoteError
from stem_iso.task.canvas.tree import Canvas, Join, Parallel, Then


class Flaky(Exception):
    """Worth another try."""


class Flakier(Flaky):
    """A kind of it."""


def add(a: int, b: int = 1) -> int:
    return a + b


def devour(size: int) -> int:
    kept = b"".join(b"x" * (1 << 20) for _ in range(size >> 20))
    return len(kept)


def cores(context: TaskContext) -> list[list[int] | None]:
    """The cores that it is given, and those that the kernel shows."""
    return [None if context.cpus is None else sorted(context.cpus), sorted(os.sched_getaffinity(0))]


def boom(message: str = "boom") -> None:
    raise ValueError(message)


def flaky(context: TaskContext, until: int) -> int:
    if context.attempt < until:
        raise Flakier(f"attempt {context.attempt}")
    return context.attempt


def spin() -> None:
    while True:
        pass


def hold_the_gil() -> int:
    return sum(range(10**12))


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave(code: int) -> None:
    os._exit(code)


def say_and_wait(context: TaskContext, path: str) -> str:
    """Says that it runs, then waits for the file."""
    context.progress(1)
    wait_for(path)
    return "done"


def say_wait_and_fail(context: TaskContext, path: str) -> None:
    say_and_wait(context, path)
    raise Flaky


def wait_for(path: str) -> None:
    for _ in range(60_000):
        if os.path.exists(path):
            return
        time.sleep(0.001)


def say_and_spin(context: TaskContext, data: Any = None) -> None:
    context.meta["said"] = "before the end"
    context.progress(42.0, data)
    spin()


def count_runs(context: TaskContext, path: str) -> int:
    """One byte per time it ran."""
    with open(path, "ab") as runs:
        runs.write(b".")
    context.progress(1)
    return os.path.getsize(path)


def count_and_spin(context: TaskContext, path: str) -> None:
    count_runs(context, path)
    spin()


def count_and_wait(context: TaskContext, path: str, gate: str) -> int:
    runs = count_runs(context, path)
    wait_for(gate)
    return runs


def remember(context: TaskContext, until: int) -> dict[str, Any]:
    context.meta["seen"] = [*context.meta.get("seen", []), context.attempt]
    if context.attempt < until:
        raise Flaky
    return dict(context.meta)


def meta_then_spin_once(context: TaskContext) -> dict[str, Any]:
    if context.attempt == 0:
        context.meta["left"] = "by attempt 0"
        context.progress(1)
        spin()
    return dict(context.meta)


def ask_again(context: TaskContext, until: int) -> int:
    if context.attempt < until:
        context.retry(countdown=0)
    return context.attempt


def spawn_child(context: TaskContext) -> str:
    return context.enqueue("add", {"a": 1}).id


def compose_what_no_store_can_hold(context: TaskContext) -> str:
    group = Parallel(id="nonsense", members=())
    try:
        context.compose(Canvas(id=group.id, tree=group, steps=(), joins=(Join(id=group.id, size=1 << 63, then=Then()),), first=()))
    except RemoteError as error:
        return str(error)
    return "stored"


def cancel(context: TaskContext, id: str, terminate: bool = False) -> bool:
    return context.revoke(id, terminate)


def extend(context: TaskContext, by: float) -> str:
    context.extend_lease(by)
    return "extended"


def beat(context: TaskContext, times: int) -> None:
    for _ in range(times):
        context.heartbeat()


def huge(size: int) -> bytes:
    return b"x" * size


def look(context: TaskContext) -> dict[str, Any]:
    return {
        "id": context.id,
        "name": context.name,
        "queue": context.queue,
        "run": context.run,
        "attempt": context.attempt,
        "max_retries": context.max_retries,
        "headers": dict(context.headers),
        "meta": dict(context.meta),
        "isolated": context.isolated,
        "remaining": None if context.remaining is None else context.remaining > 0,
        "soft": context.soft_limit_reached,
    }


async def look_async(context: TaskContext) -> dict[str, Any]:
    await asyncio.sleep(0)
    return look(context)


async def hold_the_loop(context: TaskContext, path: str) -> str:
    """Lets no other coroutine run until the file is there."""
    return say_and_wait(context, path)


async def sleep_async(context: TaskContext) -> None:
    context.progress(1)
    await asyncio.sleep(3600)


async def beat_once_async(context: TaskContext, after: float) -> None:
    await asyncio.sleep(after)
    context.heartbeat()
    await asyncio.sleep(3600)


async def swallow_async(context: TaskContext) -> str:
    context.progress(1)
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        return "swallowed"
    return "never"


async def soft_async(context: TaskContext) -> str:
    context.progress(1)
    await asyncio.sleep(3600)
    return "never"


async def loop_name() -> str:
    return threading.current_thread().name


def print_and_log() -> None:
    print("printed by a handler")
    logging.getLogger("users.own").warning("logged by a handler")
    logging.getLogger("users.own").info("as loud as the worker's own log")
    logging.getLogger("users.own").debug("quieter than that")


def print_lines(count: int) -> None:
    for number in range(count):
        print("line", number)


def write_pid(context: TaskContext, path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    context.progress(1)
    spin()


def hold_gil_inline(seconds: float) -> None:
    """A backtracking pattern keeps the GIL in one C call; it is made longer until it took that long."""
    import re

    size, began = 20, time.monotonic()
    while True:
        at = time.monotonic()
        re.fullmatch(r"(a+)+$", "a" * size + "b")
        if time.monotonic() - at >= seconds or time.monotonic() - began > 20 * seconds:
            return
        size += 1


def report(context: TaskContext, times: int) -> str:
    for number in range(1, times + 1):
        context.progress(100 * number / times)
    return "reported"


def enqueue_when_opened(context: TaskContext, gate: str) -> str:
    context.progress(1)
    wait_for(gate)
    try:
        context.enqueue("add", {"a": 1})
        error_name = "nothing"
    except Exception as error:
        error_name = type(error).__name__
    Path(gate + ".error").write_text(error_name)
    return "went on"


def wait_and_beat(context: TaskContext, gate: str) -> None:
    context.progress(1)
    wait_for(gate)
    context.heartbeat()
    spin()


def count_company(context: TaskContext, folder: str) -> int:
    """How many of these run at this moment, this one included."""
    mark = Path(folder) / context.id
    mark.touch()
    company = sum(len(path.name) == 36 for path in Path(folder).iterdir())
    time.sleep(0.0005)
    mark.unlink()
    return company


def say_much(context: TaskContext, what: str, size: int) -> str:
    """What it raises, and that it can go on."""
    try:
        match what:
            case "progress":
                context.progress(1, "x" * size)
            case "meta":
                context.meta["much"] = "x" * size
            case "revoke":
                context.revoke("x" * 16 * size)
            case "enqueue":
                context.enqueue("keep", {"value": "x" * size})
    except PayloadTooLarge as error:
        context.progress(2)
        return str(error)
    return "nothing was raised"


def keep(value: object) -> None:
    """Takes whatever it is given."""


def grow_meta(context: TaskContext, size: int) -> None:
    context.meta["list"] = []
    context.meta["list"].append("x" * size)


def log_much(context: TaskContext, size: int) -> str:
    context.logger.warning("x" * size)
    return "logged"


def print_and_fail(context: TaskContext, until: int = 0, lines: int = 1, then: str = "raise") -> str:
    for number in range(lines):
        print(f"line {number} of attempt {context.attempt}")
    logging.getLogger("users.own").warning("almost there")
    if context.attempt >= until and until:
        return "done"
    if then == "hang":
        time.sleep(600)
    if then == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    raise Flakier("no\x1b[2Jluck")
