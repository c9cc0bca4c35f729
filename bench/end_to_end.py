"""SQLite, end to end: no-ops of a worker with two seats, isolated and in the inline host, beside huey's SQLite storage; enqueue to start.

    python -m bench.end_to_end [--tasks 2000] [--rounds 5]

Rates count from the first start to the last end of tasks that were all enqueued before. huey runs them in two worker processes without
isolation, with results stored. Its storage is measured with `PRAGMA synchronous` OFF, NORMAL and FULL, which is SQLite's own default;
ours is NORMAL, or FULL (`sync=full`). Each round measures all of them once, each with a new file, beginning with another one each time:
what else the machine does meets all alike. A row has the median of the rounds with the least and the most, and its ratio to huey's median
in the same mode. Where a worker of huey meets a locked file for too long the task is lost: those are counted, after 20 s without another
result. The load is the machine's (processes that run or want to, over a minute) before each round. Without huey installed its rows are
left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench.harness import report, spread
from stem_iso import Stem, Worker
from stem_iso.worker.owned_worker import OwnedWorker

FOLDER, SYNC = os.environ.get("STEM_ISO_BENCH", "."), os.environ.get("STEM_ISO_BENCH_SYNC", "normal")
app = Stem(f"sqlite:///{FOLDER}/bench.db?sync={SYNC}")


@app.task(name="bench.noop", isolate=True, soft_time_limit=30, hard_time_limit=60)
def noop(value: int) -> int:
    return value


@app.task(name="bench.thread", soft_time_limit=30)
def thread(value: int) -> int:
    return value


@app.task(name="bench.coroutine", soft_time_limit=30, hard_time_limit=60)
async def coroutine(value: int) -> int:
    return value


PEER, HUEY_MODES = "huey, two processes", ("OFF", "NORMAL", "FULL")
KINDS = {"bench.noop": "isolated no-ops", "bench.thread": "inline sync no-ops", "bench.coroutine": "inline async no-ops"}


@app.task(name="bench.when", isolate=True)
def when() -> float:
    return time.time()


def worker_command(*options: str) -> list[str]:
    return [sys.executable, "-m", "stem_iso.worker", "-A", "bench.end_to_end:app", "-c", "2", "-l", "error", *options]


class Rates(NamedTuple):
    """Per second, of one system in one round; and how many results it never had."""

    enqueued: float
    run: float
    lost: float = 0


def own_rates(folder: Path, tasks: int, name: str, sync: str) -> Rates:
    producer = Stem(f"sqlite:///{folder}/bench.db?sync={sync}")
    before = time.perf_counter()
    for number in range(tasks):
        producer.enqueue(name, {"value": number})
    enqueued = tasks / (time.perf_counter() - before)
    subprocess.run(worker_command("--burst"), env={**os.environ, "STEM_ISO_BENCH": str(folder), "STEM_ISO_BENCH_SYNC": sync}, check=True)
    producer.close()
    with sqlite3.connect(folder / "bench.db") as store:
        query = "SELECT count(*), min(started), max(finished) FROM task WHERE state = 3 AND name = ?"
        done, first, last = store.execute(query, (name,)).fetchone()
    assert done == tasks
    return Rates(enqueued, tasks / (last - first))


def memory_rate(tasks: int) -> dict[str, Any]:
    local = Stem("memory://")
    task = local.task(name="bench.local", isolate=True, soft_time_limit=30, hard_time_limit=60)(_noop)
    handles = [task.enqueue(number) for number in range(tasks)]
    with Worker(local, concurrency=2):
        for handle in handles:
            handle.result(timeout=120)
        statuses = [handle.status() for handle in handles]
    first = min(status.started_at for status in statuses if status.started_at)
    last = max(status.finished_at for status in statuses if status.finished_at)
    return {"what": "stem_iso: isolated no-ops, memory", "per second": round(tasks / (last - first).total_seconds())}


def _noop(value: int) -> int:
    return value


def latency(folder: Path, runs: int) -> dict[str, Any]:
    producer = Stem(f"sqlite:///{folder}/bench.db")
    worker = OwnedWorker(worker_command(), env={**os.environ, "STEM_ISO_BENCH": str(folder)})
    try:
        taken = []
        for number in range(runs + 5):
            before = time.time()
            started: float = producer.enqueue("bench.when").result(timeout=30)
            time.sleep(0.01)
            if number >= 5:
                taken.append(started - before)
    finally:
        worker.terminate()
        worker.wait()
        producer.close()
    points = spread(taken)
    return {
        "what": "stem_iso: enqueue to start in the handler, idle worker",
        **{f"{name}, ms": value for name, value in points.items() if name != "n"},
    }


def idle_cpu(folder: Path, seconds: float) -> dict[str, Any]:
    """All processes of an idle worker."""
    worker = OwnedWorker(worker_command(), env={**os.environ, "STEM_ISO_BENCH": str(folder)})
    try:
        time.sleep(2)
        before = _ticks(worker.pid)
        time.sleep(seconds)
        used = (_ticks(worker.pid) - before) / os.sysconf("SC_CLK_TCK")
    finally:
        worker.terminate()
        worker.wait()
    return {"what": "stem_iso: CPU of an idle worker, all processes", "percent": round(100 * used / seconds, 3)}


def _ticks(pid: int) -> int:
    own = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(own[11]) + int(own[12]) + sum(_ticks(int(child)) for child in below)


HUEY = """
import os, signal, sys, time
from huey.api import Huey
from huey.storage import SqliteStorage
class Storage(SqliteStorage):
    def _create_connection(self):
        connection = super()._create_connection()
        connection.execute("PRAGMA synchronous = " + sys.argv[2])
        return connection
huey = Huey(storage_class=Storage, filename=sys.argv[1], results=True)
@huey.task()
def noop(value):
    return value
if __name__ == "__main__":
    tasks = int(sys.argv[3])
    before = time.perf_counter()
    for number in range(tasks):
        noop(number)
    enqueued = tasks / (time.perf_counter() - before)
    consumer = huey.create_consumer(workers=2, worker_type="process", periodic=False, check_worker_health=False)
    before = time.perf_counter()
    consumer.start()
    stored, at = 0, before
    while stored < tasks and time.perf_counter() < at + 20:
        time.sleep(0.005)
        if (now := huey.storage.result_store_size()) > stored:
            stored, at = now, time.perf_counter()
    rate = stored / (at - before)
    assert huey.storage.conn.execute("PRAGMA synchronous").fetchone()[0] == ("OFF", "NORMAL", "FULL").index(sys.argv[2])
    print(enqueued, rate, tasks - stored, flush=True)
    os.killpg(os.getpgrp(), signal.SIGKILL)
"""


def huey_rates(folder: Path, tasks: int, mode: str) -> Rates:
    program = folder / "huey_bench.py"
    program.write_text(HUEY)
    command = [sys.executable, str(program), str(folder / "huey.db"), mode, str(tasks)]
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True)
    assert done.stdout, done.stderr
    return Rates(*map(float, done.stdout.split()))


class System(NamedTuple):
    """`mode`: its synchronous, as SQLite has it."""

    what: str
    mode: str
    measure: Callable[[Path, int], Rates]


def systems() -> list[System]:
    found = [
        System(f"stem_iso: {kind}", mode, lambda folder, tasks, name=name, mode=mode: own_rates(folder, tasks, name, mode.lower()))  # type: ignore[misc]
        for name, kind in KINDS.items()
        for mode in (("NORMAL", "FULL") if name == "bench.noop" else ("NORMAL",))
    ]
    if importlib.util.find_spec("huey"):
        for mode in HUEY_MODES:
            found.append(System(PEER, mode, lambda folder, tasks, mode=mode: huey_rates(folder, tasks, mode)))  # type: ignore[misc]
    return found


def in_rounds(folder: Path, tasks: int, rounds: int) -> list[dict[str, Any]]:
    measured, loads = systems(), []
    rates: dict[System, list[Rates]] = {system: [] for system in measured}
    for number in range(rounds):
        loads.append(os.getloadavg()[0])
        for at in range(len(measured)):
            system = measured[(at + number) % len(measured)]
            own = folder / f"{number}-{at}"
            own.mkdir()
            rates[system].append(system.measure(own, tasks))
    peers = {system.mode: median(each.run for each in rates[system]) for system in measured if system.what == PEER}
    rows = [_row(system, rates[system], peers) for system in measured]
    return [*rows, {"what": "load of the machine before each round", "median": median(loads), "least": min(loads), "most": max(loads)}]


def _row(system: System, rates: list[Rates], peers: dict[str, float]) -> dict[str, Any]:
    run = [each.run for each in rates]
    row = {"what": system.what, "synchronous": system.mode, "median": round(median(run)), "least": round(min(run)), "most": round(max(run))}
    row |= {"enqueued": round(median(each.enqueued for each in rates)), "lost": round(sum(each.lost for each in rates))}
    return row if system.mode not in peers else row | {"of huey's": round(median(run) / peers[system.mode], 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = in_rounds(folder, options.tasks, options.rounds)
        report("end_to_end", rows)
        print()
        report("end_to_end_alone", [memory_rate(options.tasks), latency(folder, 200), idle_cpu(folder, 10)])


if __name__ == "__main__":
    main()
