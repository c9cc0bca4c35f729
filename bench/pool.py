"""Round trip and throughput of calls in isolates, limits armed, beside a bare pipe echo and multiprocessing.Pool in the same run.

python -m bench.pool [--seconds 2]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import pickle
import socket
import threading
from time import perf_counter
from typing import Any

from bench.harness import percentile, report
from stem_iso.isolate.job import Job, Limits
from stem_iso.outcome import Outcome
from tests.isolate.calling import Calls, Recorder, entry
from tests.isolate.handlers import echo

WINDOW = 256
ISOLATES = 2


class Counted(Recorder):
    """The lightest caller: gives its place in the window back."""

    def __init__(self, window: threading.Semaphore) -> None:
        self._window = window

    def sent(self) -> None:
        pass

    def ended(self, outcome: Outcome) -> None:
        self._window.release()


class Woken(Counted):
    """One call at a time, waited for by a lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ended(self, outcome: Outcome) -> None:
        self._lock.release()

    def wait(self) -> None:
        self._lock.acquire()


def isolates(seconds: float) -> dict[str, Any]:
    calls = Calls(size=ISOLATES, spares=0)
    job = Job(entry("echo"), pickle.dumps((1,)), title="bench", limits=Limits(soft=30, hard=60))
    for _ in range(100):
        calls.value("echo", 1)
    trips, end = [], perf_counter() + seconds
    while perf_counter() < end:
        before, caller = perf_counter(), Woken()
        calls.engine.submit(job, caller)
        caller.wait()
        trips.append(perf_counter() - before)
    window, done, start = threading.Semaphore(WINDOW), 0, perf_counter()
    while perf_counter() < start + seconds:
        window.acquire()
        calls.engine.submit(job, Counted(window))
        done += 1
    for _ in range(WINDOW):
        window.acquire()
    rate = done / (perf_counter() - start)
    calls.engine.close()
    return row("isolates, soft and hard limit armed", trips, rate)


def bare_echo(seconds: float) -> dict[str, Any]:
    """The physical limit: one byte to a forked Python process and back."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        while data := theirs.recv(65536):
            theirs.sendall(data)
        os._exit(0)
    theirs.close()
    trips, end = [], perf_counter() + seconds
    while perf_counter() < end:
        before = perf_counter()
        ours.sendall(b"x" * 64)
        ours.recv(65536)
        trips.append(perf_counter() - before)
    ours.close()
    os.waitpid(pid, 0)
    return row("bare pipe echo, one process", trips, len(trips) / seconds)


def stdlib_pool(seconds: float) -> dict[str, Any]:
    with multiprocessing.get_context("fork").Pool(ISOLATES) as pool:
        trips, end = [], perf_counter() + seconds
        while perf_counter() < end:
            before = perf_counter()
            pool.apply(echo, (1,))
            trips.append(perf_counter() - before)
        window, done, start = threading.Semaphore(WINDOW), 0, perf_counter()
        while perf_counter() < start + seconds:
            window.acquire()
            pool.apply_async(echo, (1,), callback=lambda _: window.release())
            done += 1
        for _ in range(WINDOW):
            window.acquire()
        rate = done / (perf_counter() - start)
    return row("multiprocessing.Pool, no limits", trips, rate)


def row(name: str, trips: list[float], rate: float) -> dict[str, Any]:
    return {
        "what": name,
        "round trip p50, µs": round(percentile(trips, 0.5) * 1e6, 1),
        "p99": round(percentile(trips, 0.99) * 1e6, 1),
        "calls/s": round(rate),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0)
    seconds = parser.parse_args().seconds
    report("pool", [bare_echo(seconds), stdlib_pool(seconds), isolates(seconds)])


if __name__ == "__main__":
    main()
