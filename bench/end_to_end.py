"""SQLite, end to end: no-ops of a worker with two seats, isolated and in the inline host, beside huey's SQLite storage in the same run; and
enqueue to start.

    python -m bench.end_to_end [--tasks 5000]

Rates count from the first start to the last end of tasks that were all enqueued before. huey runs them in two worker processes without
isolation, with results stored; its storage is measured with its default (`fsync=False`) and with `fsync=True`. Without huey installed its
rows are left out.
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
from pathlib import Path
from typing import Any

from bench.harness import report, spread
from stem_iso import Stem, Worker
from stem_iso.worker.owned_worker import OwnedWorker

FOLDER = os.environ.get("STEM_ISO_BENCH", ".")
app = Stem(f"sqlite:///{FOLDER}/bench.db")


@app.task(name="bench.noop", isolate=True, soft_time_limit=30, hard_time_limit=60)
def noop(value: int) -> int:
    return value


@app.task(name="bench.thread", soft_time_limit=30)
def thread(value: int) -> int:
    return value


@app.task(name="bench.coroutine", soft_time_limit=30, hard_time_limit=60)
async def coroutine(value: int) -> int:
    return value


KINDS = {"bench.noop": "isolated no-ops", "bench.thread": "inline sync no-ops", "bench.coroutine": "inline async no-ops"}


@app.task(name="bench.when", isolate=True)
def when() -> float:
    return time.time()


def worker_command(*options: str) -> list[str]:
    return [sys.executable, "-m", "stem_iso.worker", "-A", "bench.end_to_end:app", "-c", "2", "-l", "error", *options]


def file_rate(folder: Path, tasks: int, name: str) -> list[dict[str, Any]]:
    producer = Stem(f"sqlite:///{folder}/bench.db")
    before = time.perf_counter()
    for number in range(tasks):
        producer.enqueue(name, {"value": number})
    enqueued = tasks / (time.perf_counter() - before)
    subprocess.run(worker_command("--burst"), env={**os.environ, "STEM_ISO_BENCH": str(folder)}, check=True)
    producer.close()
    with sqlite3.connect(folder / "bench.db") as store:
        query = "SELECT count(*), min(started), max(finished) FROM task WHERE state = 3 AND name = ?"
        done, first, last = store.execute(query, (name,)).fetchone()
    assert done == tasks
    return [
        {"what": "stem_iso: enqueue, file", "per second": round(enqueued)},
        {"what": f"stem_iso: {KINDS[name]}, file", "per second": round(tasks / (last - first))},
    ]


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
import sys, time
from huey import SqliteHuey
huey = SqliteHuey(filename=sys.argv[1], fsync=sys.argv[2] == "True", results=True)
@huey.task()
def noop(value):
    return value
if __name__ == "__main__":
    from huey.consumer import Consumer
    import multiprocessing, signal, os, threading
    tasks = int(sys.argv[3])
    before = time.perf_counter()
    for number in range(tasks):
        noop(number)
    enqueued = tasks / (time.perf_counter() - before)
    consumer = huey.create_consumer(workers=2, worker_type="process", periodic=False, check_worker_health=False)
    before = time.perf_counter()
    consumer.start()
    while huey.storage.result_store_size() < tasks:
        time.sleep(0.005)
    rate = tasks / (time.perf_counter() - before)
    print(enqueued, rate, flush=True)
    os.killpg(os.getpgrp(), signal.SIGKILL)
"""


def huey_rate(folder: Path, tasks: int, fsync: bool) -> list[dict[str, Any]]:
    program = folder / "huey_bench.py"
    program.write_text(HUEY)
    command = [sys.executable, str(program), str(folder / f"huey-{fsync}.db"), str(fsync), str(tasks)]
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True)
    enqueued, rate = map(float, done.stdout.split())
    name = f"huey, fsync={fsync}"
    return [
        {"what": f"{name}: enqueue, file", "per second": round(enqueued)},
        {"what": f"{name}: no-ops, file, two processes", "per second": round(rate)},
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=5000)
    tasks = parser.parse_args().tasks
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [row for name in KINDS for row in file_rate(folder, tasks, name)]
        rows.append(memory_rate(tasks))
        if importlib.util.find_spec("huey"):
            rows += huey_rate(folder, tasks, fsync=False) + huey_rate(folder, tasks, fsync=True)
        rows += [latency(folder, 200), idle_cpu(folder, 10)]
    report("end_to_end", rows)


if __name__ == "__main__":
    main()
