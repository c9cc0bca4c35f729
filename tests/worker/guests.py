"""Handlers that do to their process, their loop and their worker what nobody should."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import sys
from typing import Any

from stem_iso import TaskContext
from tests.isolate import changes

TEXT = os.fsdecode(b"caf\xe9")  # as the name of a file that is not UTF-8 comes out of os.listdir


@dataclasses.dataclass
class Upload:
    name: bytes

    def __post_init__(self) -> None:
        raise ValueError(f"not a name that we take: {os.fsdecode(self.name)}")


def upload(file: Upload) -> None:
    """Its argument never passes."""


async def upload_async(file: Upload) -> None:
    """The same."""


class Hostile(Exception):
    @property
    def __traceback__(self) -> Any:  # type: ignore[override]
        raise ArithmeticError("no")

    @__traceback__.setter
    def __traceback__(self, value: Any) -> None:
        """It is set on its way out."""

    def __str__(self) -> str:
        raise ArithmeticError("no")


def _class(name: str) -> type[ValueError]:
    found = type("Named", (ValueError,), {})
    found.__qualname__ = name
    return found


def end(context: TaskContext, how: str) -> Any:
    """In one of the ways in which text that nobody can encode leaves a handler."""
    match how:
        case "message":
            raise ValueError(TEXT)
        case "name":
            raise _class(TEXT)("plain")
        case "long name":
            raise _class("E" * 300_000)("plain")
        case "notes":
            error = ValueError("plain")
            error.add_note(TEXT)
            raise error from KeyError(TEXT)
        case "hostile":
            raise Hostile
        case "result":
            return {"name": TEXT}
        case "progress":
            context.progress(1, TEXT)
        case "meta":
            context.meta[TEXT] = 1
        case "enqueue":
            context.enqueue("add", {"a": TEXT})
        case "revoke":
            context.revoke(TEXT)
    raise AssertionError(how)


async def end_async(context: TaskContext, how: str) -> Any:
    return end(context, how)


def log(context: TaskContext) -> str:
    logging.getLogger(TEXT * 100).error("logged: %s", TEXT)
    return "logged"


async def end_part(how: str, awaited: str) -> str:
    """A part of it, as a task of asyncio, does what would end a loop."""
    match awaited:
        case "gather":
            await asyncio.gather(part(how), asyncio.sleep(0))
        case "wait_for":
            await asyncio.wait_for(part(how), 60)
        case "group":
            async with asyncio.TaskGroup() as group:
                group.create_task(part(how))
        case "itself":
            await part(how)
        case "nobody":
            task = asyncio.create_task(part(how))
            await asyncio.wait([task])
    return "ended"


async def part(how: str) -> None:
    loop = asyncio.get_running_loop()
    match how:
        case "exit":
            sys.exit("usage: give a file")
        case "interrupt":
            raise KeyboardInterrupt
        case "stop":
            loop.stop()
        case "stop by its class":
            asyncio.BaseEventLoop.stop(loop)  # type: ignore[arg-type]
        case "close":
            loop.close()
        case "shutdown":
            await loop.shutdown_default_executor()
        case "cancel all":
            for task in asyncio.all_tasks():
                task.cancel()
            await asyncio.sleep(0)
        case "break":
            loop._selector.close()  # type: ignore[attr-defined]
    await asyncio.sleep(0)


async def wait_async(context: TaskContext, gate: str) -> str:
    context.progress(1)
    while not os.path.exists(gate):
        await asyncio.sleep(0.001)
    return "waited"


async def in_thread() -> str:
    return await asyncio.to_thread(lambda: "fine")


def look() -> dict[str, Any]:
    """What belongs to a thread, or to a context."""
    found = changes.look()
    return {name: found[name] for name in ("mask", "tenant", "precision", "tracing", "cpus", "nice")}


async def look_async() -> dict[str, Any]:
    return look()


def change(name: str) -> None:
    changes.change(name)


async def change_async(name: str) -> None:
    changes.change(name)


def fork() -> int:
    """The exit code of a child that leaves the handler."""
    child = os.fork()
    if child == 0:
        sys.exit(5)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


async def fork_async() -> int:
    return fork()
