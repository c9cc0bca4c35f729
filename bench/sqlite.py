"""The SQLite broker by itself: what a task costs it, how soon a parked worker holds one, and what an idle worker costs.

python -m bench.sqlite [--quick]

enqueue         one task per transaction and 100 per transaction; huey's SQLite storage beside it where huey is installed
life            publish, lease, settle with a result: µs per task at 1, 10 and 100 per transaction; and its CPU alone, since
                    a busy machine moves that less
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
from pathlib import Path
from typing import Any

import msgspec

from bench.harness import percentile, report, spread
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


def call_all(task: Callable[[str, int], Any], count: int) -> int:
    for _ in range(count):
        task("x" * 60, 128)
    return count


def huey_enqueue(folder: str, tasks: int) -> Iterator[dict[str, Any]]:
    if importlib.util.find_spec("huey") is None:
        yield {"what": "huey: not installed"}
        return
    from huey import SqliteHuey

    for fsync in (False, True):
        huey = SqliteHuey(filename=f"{folder}/huey-{fsync}.db", fsync=fsync)

        @huey.task(name="noop")
        def noop(path: str, width: int) -> None: ...

        seconds, _ = clocked(call_all, noop, tasks // 5 if fsync else tasks)
        yield {
            "what": f"huey {'FULL' if fsync else 'OFF'}, 1 per transaction",
            "enqueue/s": round(1 / seconds),
            "enqueue µs": round(seconds * 1e6, 1),
        }


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
    for part, amount in ((lives, tasks), (huey_enqueue, tasks), (wake_ups, rounds), (idle, seconds), (crowd, seconds)):
        with tempfile.TemporaryDirectory() as folder:
            rows += part(folder, amount)  # type: ignore[operator]
    report("sqlite", rows)


ROLES = {"worker": role_worker, "idle": role_idle, "crowd": role_crowd}

if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in ROLES:
        ROLES[sys.argv[1]](*sys.argv[2:])
    else:
        main()
