"""`IsolatePool` beside the pools of others, in one run: round trip, throughput, large data, cold start.

python -m bench.pool [--rounds 3] [--calls 2000]

All pools have two workers and answer the same function. Ours has soft and hard limits armed, billiard too; the others have none to arm.
Rounds are interleaved and medians reported, so that what else the machine does falls on all alike.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import multiprocessing
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from statistics import median
from time import perf_counter
from typing import Any

from bench.harness import report
from stem_iso import IsolatePool
from tests.isolate.work import echo

WINDOW = 256
WORKERS = 2
MEBIBYTE = 1 << 20

Submit = Callable[..., Any]  # (function, argument) -> something with result()


class Peer:
    """A pool to measure. `submit` gives something that has `result()`."""

    def __init__(self, name: str, submit: Submit, close: Callable[[], object]) -> None:
        self.name, self.submit, self.close = name, submit, close
        self.figures: dict[str, list[float]] = {}

    def measure(self, calls: int) -> None:
        self._note("round trip, µs", 1e6 / calls * timed(lambda: [self.submit(echo, 1).result() for _ in range(calls)]))
        self._note("calls/s", calls * 3 / timed(lambda: self._windowed(calls * 3)))
        small, large = os.urandom(MEBIBYTE), os.urandom(MEBIBYTE) * 100
        self._note("1 MiB, ms", 1e3 * median(timed(lambda: self.submit(echo, small).result()) for _ in range(15)))
        self._note("100 MiB, ms", 1e3 * min(timed(lambda: self.submit(echo, large).result()) for _ in range(2)))
        with suppress(ImportError):
            import numpy

            array = numpy.frombuffer(bytearray(large), dtype=numpy.uint8)
            self._note("100 MiB numpy, ms", 1e3 * min(timed(lambda: self.submit(echo, array).result()) for _ in range(2)))

    def _windowed(self, calls: int) -> None:
        flying: deque[Any] = deque()
        for _ in range(calls):
            if len(flying) == WINDOW:
                flying.popleft().result()
            flying.append(self.submit(echo, 1))
        for each in flying:
            each.result()

    def _note(self, what: str, value: float) -> None:
        self.figures.setdefault(what, []).append(value)

    def row(self) -> dict[str, Any]:
        return {"what": self.name, **{what: round(median(values), 2 if "ms" in what else 1) for what, values in self.figures.items()}}


class Later:
    """The result of a `multiprocessing.Pool`, asked for as a future's."""

    def __init__(self, found: Any) -> None:
        self.result = found.get


def timed(work: Callable[[], object]) -> float:
    before = perf_counter()
    work()
    return perf_counter() - before


def peers() -> list[Peer]:
    """The standard library's and the bench group's. Forks come before threads."""
    found = []
    plain = multiprocessing.get_context("fork").Pool(WORKERS)
    found.append(Peer("multiprocessing.Pool, no limits", lambda f, x: Later(plain.apply_async(f, (x,))), plain.terminate))
    import billiard.pool

    limited = billiard.pool.Pool(WORKERS, soft_timeout=30, timeout=60)
    found.append(Peer("billiard, soft and hard limit", lambda f, x: Later(limited.apply_async(f, (x,))), limited.terminate))
    executor = concurrent.futures.ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("fork"))
    found.append(Peer("ProcessPoolExecutor, no limits", executor.submit, executor.shutdown))
    from pebble import ProcessPool

    pebble = ProcessPool(WORKERS)
    found.append(Peer("pebble, hard limit", lambda f, x: pebble.schedule(f, (x,), timeout=60), pebble.stop))
    import loky

    reusable = loky.ProcessPoolExecutor(WORKERS)
    found.append(Peer("loky, no limits", reusable.submit, lambda: reusable.shutdown(kill_workers=True)))
    return found


def ours() -> tuple[IsolatePool, Peer]:
    pool = IsolatePool(WORKERS, spares=0)
    strict = pool.with_limits(soft=30, hard=60)
    return pool, Peer("IsolatePool, soft and hard limit", strict.submit, pool.kill_workers)


def awaited(pool: IsolatePool, calls: int) -> float:
    async def one_by_one() -> None:
        for _ in range(calls):
            await pool.run(echo, 1)

    return 1e6 / calls * timed(lambda: asyncio.run(one_by_one()))


START = {
    "IsolatePool": "from stem_iso import IsolatePool; pool = IsolatePool(1, spares=0)",
    "loky": "from loky import ProcessPoolExecutor; pool = ProcessPoolExecutor(1)",
}


def cold_start(which: str) -> float:
    """Milliseconds from the pool's making, its import not counted, to the first result."""
    imports, _, make = START[which].partition("; ")
    program = f"{imports}\nfrom time import perf_counter\nstart = perf_counter()\n{make}\npool.submit(abs, 1).result()\n"
    program += "import os\nprint((perf_counter() - start) * 1e3, flush=True)\npool.shutdown()"
    return float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=2000)
    options = parser.parse_args()
    measured = peers()
    pool, mine = ours()
    measured.append(mine)
    for each in measured:
        [future.result() for future in [each.submit(echo, 1) for _ in range(200)]]
    for _ in range(options.rounds):
        for each in measured:
            each.measure(options.calls)
        mine.figures.setdefault("await, µs", []).append(awaited(pool, options.calls))
    for which in START:
        name = next(each for each in measured if each.name.startswith(which))
        name.figures["cold start, ms"] = [cold_start(which) for _ in range(2 * options.rounds)]
    report("pool", [each.row() for each in measured])
    for each in measured:
        each.close()
    assert threading.active_count() < 100


if __name__ == "__main__":
    main()
