"""Tasks of the tests of `stem-iso top`, in a module that imports little: an isolate imports it within the limits of its task."""

from __future__ import annotations

import asyncio
import os
import time

from stem_iso import TaskContext

EVIL = "\x1b]0;owned\x07\x1b[2J[bold red]x[/]\u202e"


def wait(path: str) -> str:
    while not os.path.exists(path):
        time.sleep(0.01)
    return "done"


def spin() -> None:
    while True:
        pass


def flaky(path: str) -> str:
    if not os.path.exists(path):
        raise ValueError(f"no file {EVIL}")
    return "done"


async def inline(context: TaskContext, path: str) -> None:
    context.progress(1)
    while not os.path.exists(path):
        await asyncio.sleep(0.01)
