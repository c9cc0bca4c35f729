"""Limits of tasks: how near to the ideal a line moves, how often a waiting task is looked at, and what it costs those behind it.

python -m bench.lines [--quick]

rate            tasks at 100/s on one worker: seconds, and what they would be at best; times that each was asked for; CPU of the worker
places          tasks of 10 ms, three at once, on a worker of eight seats
others          a line of tasks behind one that does not end, and ten others behind that line: seconds until these are done
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.harness import report
from stem_iso import Stem, Worker
from stem_iso.brokers.base import Permit, Receipt
from stem_iso.brokers.sqlite import acquire
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.task.rate_limit import TaskLimits


class Asked:
    """Counts the questions, on their way to the store."""

    def __init__(self) -> None:
        self.count = 0
        self._acquire = acquire.acquire
        acquire.acquire = self

    def __call__(self, turn: Transaction, receipt: Receipt, limits: TaskLimits, latest: float | None) -> Permit:
        self.count += 1
        return self._acquire(turn, receipt, limits, latest)

    def stop(self) -> int:
        acquire.acquire = self._acquire
        return self.count


def run(what: str, folder: Path, ideal: float, seats: int, declare: Callable[[Stem], tuple[int, list[Any]]]) -> dict[str, Any]:
    """`declare` enqueues, and returns how many have limits and those that are waited for."""
    app = Stem(broker=f"sqlite:///{folder}/{what}.db")
    limited, handles = declare(app)
    asked, wall, cpu = Asked(), time.perf_counter(), time.process_time()
    with Worker(app, concurrency=seats):
        for handle in handles:
            handle.result(timeout=300)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        GATE.set()
    count = asked.stop()
    app.close()
    return {
        "what": what,
        "limited": limited,
        "s": round(wall, 2),
        "ideal s": round(ideal, 2),
        "asked per task": round(count / limited, 2),
        "CPU s": round(cpu, 2),
    }


GATE = threading.Event()


def rate(app: Stem, tasks: int) -> tuple[int, list[Any]]:
    tick = app.task(name="tick", rate_limit="100/s")(asyncio.sleep)
    return tasks, app.enqueue_many([tick.s(0) for _ in range(tasks)])


def places(app: Stem, tasks: int) -> tuple[int, list[Any]]:
    nap = app.task(name="nap", max_concurrency=3)(asyncio.sleep)
    return tasks, app.enqueue_many([nap.s(0.01) for _ in range(tasks)])


def others(app: Stem, tasks: int) -> tuple[int, list[Any]]:
    @app.task(name="held", max_concurrency=1)
    def held() -> None:
        GATE.wait(300)

    nap = app.task(name="nap")(asyncio.sleep)
    app.enqueue_many([held.s() for _ in range(tasks)])
    return tasks, app.enqueue_many([nap.s(0) for _ in range(10)])


def main(quick: bool) -> None:
    tasks = 300 if quick else 2000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        rows = [
            run("rate", path, tasks / 100 - 1, 4, lambda app: rate(app, tasks)),
            run("places", path, tasks * 0.01 / 3, 8, lambda app: places(app, tasks)),
            run("others", path, 0, 2, lambda app: others(app, tasks)),
        ]
    report("lines", rows)


if __name__ == "__main__":
    import sys

    main("--quick" in sys.argv)
