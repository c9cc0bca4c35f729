"""One task, one key, and crowds that all want it at once.

python -m tests.command.keyed ask THREADS           for each line of its stdin (a key): all threads enqueue together; prints their ids
python -m tests.command.keyed hammer THREADS LOG    all threads enqueue without end, and log each id that they are answered
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stem_iso import Stem, TaskContext
from tests.isolate.handlers import append
from tests.worker.handlers import wait_for

app = Stem(os.environ.get("STEM_ISO_TEST_BROKER", "sqlite:///keyed.db"))


class Soon:
    """Long enough for the crowd to see the task delayed."""

    def next_delay(self, attempt: int, error: object) -> float:
        return 0.02


@app.task(name="once", isolate=True, unique=True, visibility_timeout=0.4, max_retries=1, retry_strategy=Soon())
def once(context: TaskContext, key: str) -> str:
    """Every third one fails at first, so that locks are held across a retry too."""
    folder = Path(os.environ["STEM_ISO_TEST_FOLDER"])
    append(str(folder / "ledger"), f"start {key} {context.id}")
    wait_for(str(folder / f"gate-{key}"))
    if context.attempt == 0 and zlib.crc32(context.id.encode()) % 3 == 0:
        raise RuntimeError("once more")
    append(str(folder / "ledger"), f"end {key} {context.id}")
    return context.idempotency_key


def _spend(context: TaskContext, ledger: str) -> None:
    append(ledger, f"{context.idempotency_key} {context.run} {context.attempt}")
    if context.attempt == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def _refused(context: TaskContext) -> ValueError:
    context.meta["refused"] = context.meta.get("refused", 0) + 1
    return ValueError("refused")


@app.task(name="spend", isolate=True, visibility_timeout=30, max_retries=1, retry_strategy=Soon())
def spend(context: TaskContext, ledger: str, gate: str) -> None:
    """Killed, and at its second attempt, once the gate is open, refused."""
    _spend(context, ledger)
    wait_for(gate)
    raise _refused(context)


@app.task(name="inline.spend", visibility_timeout=30, max_retries=1, retry_strategy=Soon())
async def inline_spend(context: TaskContext, ledger: str, gate: str) -> None:
    _spend(context, ledger)
    while not os.path.exists(gate):
        await asyncio.sleep(0.001)
    raise _refused(context)


def ask(threads: int) -> None:
    together = threading.Barrier(threads)

    def one(key: str) -> str:
        together.wait()
        return once.enqueue(key).id

    with ThreadPoolExecutor(threads) as pool:
        print("ready", flush=True)
        for line in sys.stdin:
            print(*pool.map(one, [line.strip()] * threads), flush=True)


def hammer(threads: int, log: str) -> None:
    def one(_: int) -> None:
        never = threading.Event()
        while not never.wait(0.002):  # as a crowd of requests would: with all cores taken by producers, none would be left to work
            append(log, once.enqueue("hammered").id)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(threads)))


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        ask(int(sys.argv[2]))
    else:
        hammer(int(sys.argv[2]), sys.argv[3])
