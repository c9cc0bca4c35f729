"""Canvases beside the same tasks without one: what it costs that each end moves its neighbours, and that results wait for their group.

python -m bench.canvas [--quick]

plain       tasks enqueued in one batch, all waited for        the measure of the others: `ratio` is tasks/s beside it
group       the same tasks as members of one group, its results read in order
as they come    the same, read as they come
chord       the same, and a callback that gets all results
chain       tasks that each wait for the one before: here one may run at a time, so the figure is that of a round trip
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.harness import report
from stem_iso import Stem, Worker, chain, chord, group

SEATS = 4


async def same(value: int) -> int:
    return value


async def add(values: list[int]) -> int:
    return sum(values)


def measured(folder: Path, what: str, count: int, run: Callable[[Stem, int], object]) -> dict[str, Any]:
    app = Stem(broker=f"sqlite:///{folder}/{what}.db", max_payload_bytes=16 << 20)
    app.task(name="same")(same)
    app.task(name="add")(add)
    with Worker(app, concurrency=SEATS):
        began = time.perf_counter()
        run(app, count)
        took = time.perf_counter() - began
    app.close()
    return {"what": what, "tasks": count, "s": round(took, 2), "tasks/s": round(count / took)}


def plain(app: Stem, count: int) -> int:
    handles = app.enqueue_many([app.task_named("same").s(number) for number in range(count)])
    return sum(handle.result(timeout=300) for handle in handles)


def members(app: Stem, count: int) -> list[Any]:
    return [app.task_named("same").s(number) for number in range(count)]


RUNS: dict[str, Callable[[Stem, int], object]] = {
    "plain": plain,
    "group": lambda app, count: group(members(app, count)).enqueue().results(timeout=300),
    "as they come": lambda app, count: list(group(members(app, count)).enqueue().as_completed(timeout=300)),
    "chord": lambda app, count: chord(members(app, count), app.task_named("add").after()).enqueue().result(timeout=300),
    "chain": lambda app, count: chain(members(app, 1)[0], *[app.task_named("same").after()] * (count - 1)).enqueue().result(timeout=300),
}


def main() -> None:
    count = 500 if "--quick" in sys.argv else 5000
    with tempfile.TemporaryDirectory() as folder:
        rows = [measured(Path(folder), what, count, run) for what, run in RUNS.items()]
    report("canvas", [{**row, "ratio": round(row["tasks/s"] / rows[0]["tasks/s"], 2)} for row in rows])


if __name__ == "__main__":
    main()
