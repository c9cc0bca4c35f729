"""An application whose module listens to every signal, and stands around every handler: one JSON line each, with its process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from msgspec.structs import replace

from stem_iso import Envelope, Middleware, Stem, TaskContext
from tests.command import app as usual
from tests.worker import handlers
from tests.worker.conftest import QuickRetries

app = Stem(os.environ.get("STEM_ISO_TEST_BROKER", "sqlite:///command.db"), default_visibility_timeout=30)
app.task(name="echo", isolate=True)(usual.echo.handler.function)
app.task(name="wait", isolate=True)(handlers.say_and_wait)


def write(line: dict[str, Any]) -> None:
    ledger = os.open(os.environ["STEM_ISO_TEST_SIGNALS"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(ledger, msgspec.json.encode({"by": os.getpid(), **line}) + b"\n")
    os.close(ledger)


for channel in app.signals:
    channel.connect(lambda value: write(msgspec.to_builtins(value)))


@app.signals.task_prerun.connect
def broken(value: object) -> None:
    raise ZeroDivisionError


class Marking(Middleware):
    def enqueue(self, envelopes: Sequence[Envelope], call_next: Callable[[Sequence[Envelope]], list[str]]) -> list[str]:
        return call_next([replace(each, headers={**each.headers, "sent from": os.getpid()}) for each in envelopes])

    @contextmanager
    def around(self, context: TaskContext) -> Iterator[None]:
        write({"around": context.name, "attempt": context.attempt})
        yield


app.middleware.add(Marking())


@app.task(name="inline.parent")
async def parent(context: TaskContext) -> tuple[str, int]:
    return (await context.aenqueue("echo", {"value": 1})).id, os.getpid()


@app.task(name="crash once", isolate=True, max_retries=1, retry_strategy=QuickRetries())
def crash_once(context: TaskContext) -> int:
    if context.attempt == 0:
        os._exit(3)
    return os.getpid()
