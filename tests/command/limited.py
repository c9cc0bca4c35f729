"""Tasks with limits, for workers that are started by command; each writes down when it began and when it ended."""

from __future__ import annotations

import os
import time

from stem_iso import Stem, TaskContext
from tests.isolate.handlers import append

app = Stem(os.environ.get("STEM_ISO_TEST_BROKER", "sqlite:///limited.db"), claim_interval=0.1)


@app.task(name="echo")
async def echo(value: int) -> int:
    return value


@app.task(name="three", isolate=True, max_concurrency=3)
def three(context: TaskContext, ledger: str, seconds: float) -> int:
    append(ledger, f"start {context.id} {time.monotonic()} {os.getppid()}")
    time.sleep(seconds)
    append(ledger, f"end {context.id} {time.monotonic()} {os.getppid()}")
    return context.attempt


@app.task(name="paced", rate_limit="20/500ms")
async def paced(context: TaskContext, ledger: str) -> None:
    append(ledger, f"start {context.id} {time.monotonic()} {os.getppid()}")
