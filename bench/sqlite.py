"""The SQLite broker by itself: what a task costs it, how soon a parked worker holds one, and what an idle worker costs.

python -m bench.sqlite [--quick]

enqueue         a producer's whole call, one task per transaction, and `enqueue_many` of 2,000: µs of CPU and of wall clock per task, median
                    and range of rounds in which huey's SQLite storage stands beside it (where it is installed) at each `synchronous`;
                    ours is NORMAL
life            publish, lease, settle with a result: µs per task at 1, 10 and 100 per transaction; and its CPU alone, since
                    a busy machine moves that less
enqueue → start a producer's clock before its enqueue, to the handler's, in an isolate of an idle worker by command
enqueue → lease the producer's clock before its publish, to the worker's clock with the delivery in hand; two processes, worker parked
delayed         how late a task is leased that was delayed by 100 ms, an idle worker
idle            CPU of a parked worker, as it looks every 250 ms
crowd           4 producers (one per transaction) beside 4 workers (50): tasks/s, worst wait for the lock, size of the WAL
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from bench.end_to_end import latency
from bench.harness import percentile, report, spread
from stem_iso import Stem
from stem_iso.brokers.base import Broker, Settlement, WorkWatch
from stem_iso.brokers.url import open_broker
from stem_iso.client.enqueue import new_id
from stem_iso.outcome import TaskState
from stem_iso.task.envelope import Envelope
from stem_iso.task.settlement import Finish

ARGS = msgspec.Raw(msgspec.msgpack.encode({"path": "x" * 60, "width": 128}))  # an envelope of some 170 bytes
DONE = Finish(TaskState.SUCCEEDED, result=b"x" * 60)
FILE = "sqlite:///bench.db"
URLS = (FILE, "memory://")


def envelope(**fields: Any) -> Envelope:
    return Envelope(id=new_id(), name="thumbs.make", args=ARGS, enqueued_at=time.time(), **fields)


def clocked(work: Callable[..., int], *arguments: Any) -> tuple[float, float]:
    """Seconds and CPU seconds per unit of what `work` counts."""
    wall, cpu = time.perf_counter(), time.process_time()
    count = work(*arguments)
    return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count


# -- one process -------------------------------------------------------------------------------------------------------------------


def publish_all(broker: Broker, envelopes: list[Envelope], batch: int) -> int:
    for start in range(0, len(envelopes), batch):
        broker.publish(envelopes[start : start + batch])
    return len(envelopes)


def run_all(broker: Broker, batch: int) -> int:
    """Settling and fetching joined, as a worker does."""
    ended: list[Settlement] = []
    count = 0
    while (exchange := broker.exchange("bench", ended, ["default"], batch)).deliveries:
        ended = [Settlement(one.receipt, DONE) for one in exchange.deliveries]
        count += len(ended)
    return count


def lives(folder: str, tasks: int) -> Iterator[dict[str, Any]]:
    for url in URLS:
        broker = open_broker(url, cwd=folder)
        broker.queues()  # opened
        for batch in (1, 10, 100):
            published = clocked(publish_all, broker, [envelope() for _ in range(tasks)], batch)
            exchanged = clocked(run_all, broker, batch)
            yield {
                "what": f"{url.partition(':')[0]}, {batch} per transaction",
                "enqueue/s": round(1 / published[0]),
                "enqueue µs": round(published[0] * 1e6, 1),
                "exchange µs": round(exchanged[0] * 1e6, 1),
                "life µs": round((published[0] + exchanged[0]) * 1e6, 1),
                "life CPU µs": round((published[1] + exchanged[1]) * 1e6, 1),
            }
        broker.close()


ROUNDS, MANY = 5, 2000


def stem_enqueues(folder: str) -> Iterator[tuple[str, Callable[[int], int]]]:
    app = Stem(f"sqlite:///{folder}/stem.db")

    @app.task(name="noop")
    def noop(path: str, width: int) -> None: ...

    def single(count: int) -> int:
        for _ in range(count):
            noop.enqueue("x" * 60, 128)
        return count

    def many(count: int) -> int:
        app.enqueue_many([noop.s("x" * 60, 128) for _ in range(MANY)])
        return MANY

    yield "stem_iso, NORMAL", single
    yield f"stem_iso, NORMAL, {MANY} at once", many


def huey_enqueues(folder: str) -> Iterator[tuple[str, Callable[[int], int]]]:
    from huey import SqliteHuey

    for synchronous in ("OFF", "NORMAL", "FULL"):
        huey = SqliteHuey(filename=f"{folder}/huey-{synchronous}.db", fsync=synchronous == "FULL")

        @huey.task(name="noop")
        def noop(path: str, width: int) -> None: ...

        huey.storage.conn.execute(f"PRAGMA synchronous = {synchronous}")
        yield f"huey, {synchronous}", partial(_call_all, noop, 10 if synchronous == "FULL" else 1)


def _call_all(task: Callable[[str, int], Any], part: int, count: int) -> int:
    for _ in range(count // part):
        task("x" * 60, 128)
    return count // part


def enqueues(folder: str, tasks: int) -> Iterator[dict[str, Any]]:
    """Round by round, so that what else the machine does falls on all alike."""
    sides = dict(stem_enqueues(folder))
    if importlib.util.find_spec("huey") is None:
        yield {"what": "huey: not installed"}
    else:
        sides |= dict(huey_enqueues(folder))
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for enqueue in sides.values():
        enqueue(100)  # opened
    for _ in range(ROUNDS):
        for name, enqueue in sides.items():
            taken[name].append(clocked(enqueue, tasks // ROUNDS))
    for name, rounds in taken.items():
        wall, cpu = ([each[at] * 1e6 for each in rounds] for at in (0, 1))
        yield {
            "what": f"enqueue: {name}",
            "enqueue/s": round(1e6 / percentile(wall, 0.5)),
            "enqueue µs": round(percentile(wall, 0.5), 1),
            "from–to": f"{min(wall):.1f}–{max(wall):.1f}",
            "CPU µs": round(percentile(cpu, 0.5), 1),
            "CPU from–to": f"{min(cpu):.1f}–{max(cpu):.1f}",
            "load": round(os.getloadavg()[0], 1),
        }


def starts(folder: str, runs: int) -> Iterator[dict[str, Any]]:
    yield latency(Path(folder), runs) | {"load": round(os.getloadavg()[0], 1)}


# -- several processes: this file again, with a role ---------------------------------------------------------------------------------


@contextmanager
def process(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen(
        [sys.executable, "-m", "bench.sqlite", *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def parked(watch: WorkWatch, seconds: float) -> None:
    poll = select.poll()
    poll.register(watch.fileno(), select.POLLIN)
    poll.poll(max(0.0, min(seconds, watch.interval)) * 1000)


def role_worker(folder: str) -> None:
    """Leases one at a time, and says when (CLOCK_MONOTONIC is the machine's)."""
    broker = open_broker(FILE, cwd=folder)
    watch = broker.watch("worker", ["default"])
    ended: list[Settlement] = []
    print("parked", flush=True)
    while True:
        exchange = broker.exchange("worker", ended, ["default"], 1)
        now, wall = time.monotonic(), time.time()
        ended = [Settlement(one.receipt, DONE) for one in exchange.deliveries]
        for one in exchange.deliveries:
            print(one.receipt.id, now, wall, flush=True)
        if not ended:
            parked(watch, 5.0 if exchange.next_due is None else exchange.next_due)
            watch.changed()


def role_idle(folder: str, seconds: str) -> None:
    broker = open_broker(FILE, cwd=folder)
    watch = broker.watch("idle", ["default"])
    end = time.monotonic() + float(seconds)
    before = resource.getrusage(resource.RUSAGE_SELF)
    while (left := end - time.monotonic()) > 0:
        if watch.changed():
            broker.exchange("idle", [], ["default"], 1)
        parked(watch, left)
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, flush=True)


def role_crowd(folder: str, kind: str, seconds: str) -> None:
    broker = open_broker(FILE, cwd=folder)
    broker.queues()
    end = time.monotonic() + float(seconds)
    waits, count, ended = [], 0, []  # type: list[float], int, list[Settlement]
    while (before := time.monotonic()) < end:
        if kind == "produce":
            broker.publish([envelope()])
            count += 1
        else:
            exchange = broker.exchange(f"worker-{os.getpid()}", ended, ["default"], 50)
            ended = [Settlement(one.receipt, DONE) for one in exchange.deliveries]
            count += len(exchange.verdicts)
        waits.append(time.monotonic() - before)
    log = Path(folder) / "bench.db-wal"  # looked at while it is open: the last to close removes it
    print(json.dumps({"count": count, "worst": max(waits), "wal": log.stat().st_size}), flush=True)


def wake_ups(folder: str, rounds: int) -> Iterator[dict[str, Any]]:
    broker = open_broker(FILE, cwd=folder)
    broker.queues()
    pause = select.poll()
    with process("worker", folder) as worker:
        assert worker.stdout and worker.stdout.readline() == "parked\n"
        at_once, late = [], []
        for _ in range(rounds):
            pause.poll(5)  # until it is parked again: sparse enqueues
            before = time.monotonic()
            broker.publish([envelope()])
            at_once.append(float(worker.stdout.readline().split()[1]) - before)
        for _ in range(rounds // 5):
            due = time.time() + 0.1
            broker.publish([envelope(not_before=due)])
            late.append(float(worker.stdout.readline().split()[2]) - due)
    yield {"what": "enqueue → lease, ms", **spread(at_once, 1e3, 3)}
    yield {"what": "delayed: late by, ms", **spread(late, 1e3, 3)}
    broker.close()


def idle(folder: str, seconds: float) -> Iterator[dict[str, Any]]:
    with process("idle", folder, seconds) as worker:
        assert worker.stdout
        yield {"what": "a parked worker, CPU %", "p50": round(float(worker.stdout.readline()) / seconds * 100, 3)}


def crowd(folder: str, seconds: float) -> Iterator[dict[str, Any]]:
    kinds = ["produce"] * 4 + ["work"] * 4
    started = [
        subprocess.Popen([sys.executable, "-m", "bench.sqlite", "crowd", folder, kind, str(seconds)], stdout=subprocess.PIPE, text=True)
        for kind in kinds
    ]
    answers = [json.loads(one.communicate()[0]) for one in started]
    for kind in ("produce", "work"):
        mine = [answer for answer, who in zip(answers, kinds, strict=True) if who == kind]
        yield {
            "what": f"4 + 4 processes: {kind}",
            "per second": round(sum(one["count"] for one in mine) / seconds),
            "worst wait ms": round(percentile([one["worst"] for one in mine], 1.0) * 1e3, 1),
            "WAL MB": round(max(one["wal"] for one in mine) / 1e6, 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of it, for a first look")
    quick = parser.parse_args().quick
    tasks, rounds, seconds = (2000, 30, 2.0) if quick else (20_000, 200, 10.0)
    rows: list[dict[str, Any]] = []
    for part, amount in ((enqueues, tasks), (lives, tasks), (starts, rounds), (wake_ups, rounds), (idle, seconds), (crowd, seconds)):
        with tempfile.TemporaryDirectory() as folder:
            rows += part(folder, amount)  # type: ignore[operator]
    report("sqlite", rows)


ROLES = {"worker": role_worker, "idle": role_idle, "crowd": role_crowd}

if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in ROLES:
        ROLES[sys.argv[1]](*sys.argv[2:])
    else:
        main()
