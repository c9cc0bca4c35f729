"""One task, one key, and crowds that all want it at once.

python -m tests.command.keyed ask THREADS           for each line of its stdin (a key): all threads enqueue together; prints their ids
python -m tests.command.keyed hammer THREADS LOG    all threads enqueue without end, and log each id that they are answered
"""

from __future__ import annotations

import os
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
