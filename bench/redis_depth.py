"""What `bench.redis` asks of stem_iso alone: many at once, delays, bytes of a queued task, and the price of a long queue."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from bench.harness import percentile
from stem_iso import Stem
from stem_iso.brokers.base import Broker, Delivery, Settlement
from stem_iso.outcome import TaskState
from stem_iso.task.settlement import Finish
from tests.servers.server import Server

CHUNK = 2000
SHORT = 1000  # tasks in the short queue


def rows(server: Server, samples: int, deep: int) -> list[dict[str, Any]]:
    found = [many(server, 20_000), delayed(server, min(samples, 40)), *queued(server, 20_000)]
    return [*found, *depth(server, deep)] if deep else found


def fill(app: Stem, tasks: int) -> float:
    """Seconds."""
    from bench.redis_peers.stem_iso import same

    before = time.perf_counter()
    for first in range(0, tasks, CHUNK):
        app.enqueue_many([same.s(number) for number in range(first, min(tasks, first + CHUNK))])
    return time.perf_counter() - before


def many(server: Server, tasks: int) -> dict[str, Any]:
    from bench.redis_peers.stem_iso import app

    server.plain().flushall()
    fill(app, CHUNK)
    return {"what": f"enqueue_many, {CHUNK} at once, per second", "found": round(tasks / fill(app, tasks)), "target": "≥ 100,000"}


def delayed(server: Server, samples: int) -> dict[str, Any]:
    """An idle worker; each task is due 150 ms after its call."""
    from bench.redis import start_worker, stop
    from bench.redis_peers import stem_iso as peer

    client = server.plain()
    client.flushall()
    with tempfile.TemporaryDirectory() as folder:
        worker = start_worker(peer.COMMAND, server.url, Path(folder) / "log")
        try:
            taken = []
            for number in range(samples + 2):
                due = time.time() + 0.15
                peer.began.using(delay=0.15).enqueue()
                popped = client.blpop("bench:when", timeout=60)
                assert popped is not None, "a delayed task does not start"
                if number >= 2:
                    taken.append(float(popped[1]) - due)
        finally:
            stop(worker)
    late = {"p50": round(percentile(taken, 0.5) * 1e3, 2), "max": round(max(taken) * 1e3, 2)}
    return {
        "what": "delayed by 150 ms: the handler's first line is late by, ms",
        "found": late["p50"],
        "max": late["max"],
        "target": "≤ 6 ms",
    }


def queued(server: Server, tasks: int) -> list[dict[str, Any]]:
    from bench.redis_peers.stem_iso import app

    client = server.plain()
    client.flushall()
    fill(app, 100)  # scripts, registry, the client's buffers
    before = client.info("memory")["used_memory"]
    fill(app, tasks)
    return [{"what": "bytes of a queued task", "found": round((client.info("memory")["used_memory"] - before) / tasks), "target": "≤ 400"}]


def depth(server: Server, deep: int) -> list[dict[str, Any]]:
    from bench.redis_peers.stem_iso import app

    found = {}
    for tasks in (SHORT, deep):
        server.plain().flushall()
        fill(app, tasks)
        broker = app.site.open()
        for at_once in (1, 10):
            found[tasks, at_once] = percentile([cost(server, app, broker, at_once) for _ in range(5)], 0.5)
        broker.close()
    server.plain().flushall()
    return [
        {
            "what": f"fetch and settle, {at_once} at once, {deep:,} queued: µs of the server a task",
            "found": round(found[deep, at_once], 1),
            "beside 1,000": round(found[SHORT, at_once], 1),
            "ratio": round(found[deep, at_once] / found[SHORT, at_once], 2),
            "target": "ratio ≤ 1.35",
        }
        for at_once in (1, 10)
    ]


def cost(server: Server, app: Stem, broker: Broker, at_once: int, tasks: int = 500) -> float:
    """µs of the server's processor a task, its queue as long afterwards as before."""
    from bench.redis import cpu

    fill(app, tasks)
    settlements: list[Settlement] = []
    before, done = cpu(server.pid), 0
    while done < tasks:
        exchange = broker.exchange("bench", settlements, ["default"], at_once)
        settlements = [finished(delivery) for delivery in exchange.deliveries]
        done += len(settlements)
        assert settlements, "the queue is empty"
    broker.exchange("bench", settlements, ["default"], 0)
    return (cpu(server.pid) - before) / done * 1e6


def finished(delivery: Delivery) -> Settlement:
    return Settlement(delivery.receipt, Finish(TaskState.SUCCEEDED, result=b"\x01", ttl=60.0))
