"""What the workers run: `python -m stem_iso.worker -A entrypoints.retry_task.tasks:app`."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from entrypoints.retry_task.signal_lines import SignalWriter
from stem_iso import ExponentialJitterRetryStrategy, Stem, TaskContext

MAX_RETRIES = 3

app = Stem(block_time=5, claim_interval=0.5, default_visibility_timeout=8)
writer = SignalWriter()
for channel in app.signals:
    channel.connect(writer.on_signal)


@app.task(name="retry_task.fail", isolate=True, max_retries=MAX_RETRIES, retry_strategy=ExponentialJitterRetryStrategy(base=0.3, max=2))
def fail(context: TaskContext, reason: str) -> None:
    raise ConnectionError(f"{reason}, attempt {context.attempt}")


@app.task(name="retry_task.outlive", isolate=True)
def outlive(context: TaskContext, flag: Path) -> int:
    """Waits to be killed, where nobody has been before; answers its attempt, where somebody has.

    Who cannot reach the worker's process asks for its death by a second file (`order`)."""
    if flag.exists():
        return context.attempt
    flag.touch()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if order(flag).exists():
            os.kill(os.getppid(), signal.SIGKILL)  # the launcher, which takes all with it, this process too
        time.sleep(0.01)
    raise TimeoutError("nobody came to kill the worker")


def order(flag: Path) -> Path:
    return flag.with_name(f"{flag.name}-kill")
