"""Two BLAS calls beside each other, with and without cores of their own; and one alone, which is what each could have at best.

    python -m bench.cores [--runs 9]

"as the library likes": its pool has a thread for every core, as without stem_iso. "sized": the pool of each isolate has its share of the
cores. "pinned": `cpus=1`. Rounds take turns, so that a machine that slows down slows down all; "slower than alone" is of the same round.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from concurrent.futures import Executor
from time import perf_counter, sleep
from typing import Any

from bench.harness import percentile, report
from stem_iso import IsolatePool
from stem_iso.isolate.linux import POOL_SIZES

SIZE, TIMES = 512, 12


def blas(size: int, times: int) -> float:
    """Seconds for some products of matrices."""
    import numpy

    matrix = numpy.random.default_rng(1).random((size, size))
    began = perf_counter()
    for _ in range(times):
        matrix @ matrix
    return perf_counter() - began


def two(pool: Executor) -> list[float]:
    return [future.result() for future in [pool.submit(blas, SIZE, TIMES) for _ in range(2)]]


def pool_of(threads: int | None) -> IsolatePool:
    """Its isolates' native pools have so many threads; None: their share."""
    before = {name: os.environ.pop(name, None) for name in POOL_SIZES}
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    pool = IsolatePool(2, spares=0, preload=("numpy",))
    two(pool)
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    return pool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    with pool_of(len(os.sched_getaffinity(0))) as free, pool_of(None) as sized:
        ways: dict[str, Callable[[], list[float]]] = {
            "alone, one thread": lambda: [sized.submit(blas, SIZE, TIMES).result()],
            "two, as the library likes": lambda: two(free),
            "two, sized": lambda: two(sized),
            "two, pinned": lambda: two(sized.with_limits(cpus=1)),
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(runs):
            for name, way in ways.items():
                found[name].append(max(way()))
                sleep(0.05)
    alone = found["alone, one thread"]
    rows: list[dict[str, Any]] = []
    for name, seconds in found.items():
        slower = [each / one for each, one in zip(seconds, alone, strict=True)]
        row = {"case": name, "slowest, ms p50": round(percentile(seconds, 0.5) * 1e3, 1), "max": round(max(seconds) * 1e3, 1)}
        rows.append(row | {"slower than alone, p50": round(percentile(slower, 0.5), 2), "worst": round(max(slower), 2)})
    report("cores", rows)


if __name__ == "__main__":
    main()
