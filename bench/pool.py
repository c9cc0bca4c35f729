"""`IsolatePool` beside the pools of others, in one run: round trip, throughput, large data, cold start.

python -m bench.pool [--rounds 5] [--calls 1000]

All pools have two workers and answer the same function. Ours has soft and hard limits armed, billiard too; the others have none to arm.
Each round takes one figure after the other, and each figure of all pools in turn, so that what else the machine does falls on all alike.
A cell is the median of the rounds, with the least and the most; a ratio is taken within its round. The last table is the CPU time of one
call of ours, by the side that spends it: how busy the machine is moves that less than it moves the clock on the wall.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy

from bench.harness import report
from stem_iso import IsolatePool
from tests.isolate.work import echo

WINDOW = 256
WORKERS = 2
MEBIBYTE = 1 << 20
SMALL, LARGE = os.urandom(MEBIBYTE), os.urandom(MEBIBYTE) * 100
ARRAY = numpy.frombuffer(bytearray(LARGE), dtype=numpy.uint8)

ROUND_TRIP, RATE, AWAIT, COLD = "round trip, µs", "calls/s", "await, µs", "cold start, ms"

Submit = Callable[..., Any]  # (function, argument) -> something with result()


class Peer:
    """A pool to measure. `submit` gives something that has `result()`."""

    def __init__(self, name: str, submit: Submit, close: Callable[[], object]) -> None:
        self.name, self.submit, self.close = name, submit, close
        self.figures: dict[str, list[float]] = {}

    def one_by_one(self, calls: int) -> None:
        for _ in range(calls):
            self.submit(echo, 1).result()

    def windowed(self, calls: int) -> None:
        flying: deque[Any] = deque()
        for _ in range(calls):
            if len(flying) == WINDOW:
                flying.popleft().result()
            flying.append(self.submit(echo, 1))
        for each in flying:
            each.result()

    def echo_ms(self, value: Any, times: int) -> float:
        return 1e3 * median(timed(lambda: self.submit(echo, value).result()) for _ in range(times))

    def note(self, what: str, value: float) -> None:
        self.figures.setdefault(what, []).append(value)

    def row(self) -> dict[str, Any]:
        return {"what": self.name, **{what: spread(values, 2 if "ms" in what else 0) for what, values in self.figures.items()}}


FIGURES: dict[str, Callable[[Peer, int], float]] = {
    ROUND_TRIP: lambda peer, calls: 1e6 / calls * timed(lambda: peer.one_by_one(calls)),
    RATE: lambda peer, calls: calls * 3 / timed(lambda: peer.windowed(calls * 3)),
    "1 MiB, ms": lambda peer, calls: peer.echo_ms(SMALL, 9),
    "100 MiB, ms": lambda peer, calls: peer.echo_ms(LARGE, 1),
    "100 MiB numpy, ms": lambda peer, calls: peer.echo_ms(ARRAY, 1),
}


class Later:
    """The result of a `multiprocessing.Pool`, asked for as a future's."""

    def __init__(self, found: Any) -> None:
        self.result = found.get


def timed(work: Callable[[], object]) -> float:
    before = perf_counter()
    work()
    return perf_counter() - before


def spread(values: Sequence[float], digits: int) -> str:
    least, middle, most = (f"{value:.{digits}f}" for value in (min(values), median(values), max(values)))
    return f"{middle} ({least}–{most})"


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


class Ours(Peer):
    """Under limits, and the CPU time of its sides."""

    def __init__(self) -> None:
        self._pids: set[int] = set()
        pool = IsolatePool(WORKERS, spares=0)
        pool.on(lambda notice: self._pids.add(notice.pid) if getattr(notice, "action", "") == "ready" else None)
        self.strict = pool.with_limits(soft=30, hard=60)
        super().__init__("IsolatePool, soft and hard limit", self.strict.submit, pool.kill_workers)
        self.cpu: dict[str, list[tuple[float, float, float]]] = {}

    def awaited(self, calls: int) -> None:
        async def one_by_one() -> None:
            for _ in range(calls):
                await self.strict.run(echo, 1)

        asyncio.run(one_by_one())

    def note_cpu(self, calls: int) -> None:
        """µs of one call: the thread that submits and waits, the engine's thread, the isolates."""
        for what, work in {"round trip": self.one_by_one, "window of 256": self.windowed, "await": self.awaited}.items():
            before = self._spent()
            work(calls)
            spent = [(after - earlier) / calls / 1e3 for after, earlier in zip(self._spent(), before, strict=True)]
            self.cpu.setdefault(what, []).append((spent[0], spent[1], spent[2]))

    def _spent(self) -> tuple[int, int, int]:
        engine = next(each.native_id for each in threading.enumerate() if each.name == "stem_iso-engine")
        own = os.getpid()
        return cpu_of(own, threading.get_native_id()), cpu_of(own, engine or 0), sum(cpu_of(pid, pid) for pid in self._pids)


def cpu_of(pid: int, thread: int) -> int:
    """Nanoseconds."""
    return int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])


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


def ratios(measured: Sequence[Peer], mine: Ours) -> list[dict[str, str]]:
    """Ours by theirs: of times less is better, of calls/s more."""
    rows = []
    for each in measured:
        if each is mine:
            continue
        pairs = {ROUND_TRIP: (ROUND_TRIP, ROUND_TRIP), RATE: (RATE, RATE), "await, by its round trip": (AWAIT, ROUND_TRIP)}
        found = {what: (mine.figures[own], each.figures[theirs]) for what, (own, theirs) in pairs.items()}
        shares = {what: [one / other for one, other in zip(*both, strict=True)] for what, both in found.items()}
        rows.append({"ours by": each.name, **{what: spread(values, 2) for what, values in shares.items()}})
    return rows


def cpu_rows(mine: Ours) -> list[dict[str, str]]:
    rows = []
    for what, taken in mine.cpu.items():
        sides = dict(zip(("submitter", "engine", "isolates"), zip(*taken, strict=True), strict=True))
        rows.append({"CPU µs a call": what} | {side: spread(values, 1) for side, values in sides.items()})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=1000)
    options = parser.parse_args()
    measured = peers()
    mine = Ours()
    measured.append(mine)
    loads = [os.getloadavg()[0]]
    for each in measured:
        each.windowed(200)
    for _ in range(options.rounds):
        mine.note_cpu(options.calls)  # first: to give back what large data took costs time as well
        for what, figure in FIGURES.items():
            for each in measured:
                each.note(what, figure(each, options.calls))
            if what == ROUND_TRIP:  # beside theirs
                mine.note(AWAIT, 1e6 / options.calls * timed(lambda: mine.awaited(options.calls)))
        loads.append(os.getloadavg()[0])
    for which in START:
        next(each for each in measured if each.name.startswith(which)).figures[COLD] = [cold_start(which) for _ in range(options.rounds)]
    report("pool", [*(each.row() for each in measured), {"what": f"load average {spread(loads, 1)}"}])
    report("pool-ratios", ratios(measured, mine))
    report("pool-cpu", cpu_rows(mine))
    for each in measured:
        each.close()
    assert threading.active_count() < 100


if __name__ == "__main__":
    main()
