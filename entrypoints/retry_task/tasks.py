"""What the workers run: `python -m stem_iso.worker -A entrypoints.retry_task.tasks:app`."""

from __future__ import annotations

import time
from pathlib import Path

from entrypoints.retry_task.telling import Teller
from stem_iso import ExponentialJitterRetryStrategy, Stem, TaskContext

MAX_RETRIES = 3

app = Stem(block_time=5, claim_interval=0.5, default_visibility_timeout=2)
teller = Teller()
for channel in app.signals:
    channel.connect(teller.tell)


@app.task(name="retry_task.fail", isolate=True, max_retries=MAX_RETRIES, retry_strategy=ExponentialJitterRetryStrategy(base=0.3, max=2))
def fail(context: TaskContext, reason: str) -> None:
    raise ConnectionError(f"{reason}, attempt {context.attempt}")


@app.task(name="retry_task.outlive", isolate=True)
def outlive(context: TaskContext, flag: Path) -> int:
    """Waits to be killed, where nobody has been before; answers its attempt, where somebody has."""
    if flag.exists():
        return context.attempt
    flag.touch()
    time.sleep(60)
    raise TimeoutError("nobody came to kill the worker")
