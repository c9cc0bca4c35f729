"""Records of workers: who is alive, from heartbeats. All in one slot, all of it gone by itself when nobody writes any more.

beat ──> shown for 30 s; kept for the neighbours of its machine while it may hold a lease
"""

from __future__ import annotations

from collections.abc import Set
from contextlib import suppress

import msgspec

from stem_iso.brokers.base import WorkerInfo
from stem_iso.brokers.redis.corrupt_records import DAMAGE, log_corrupt, text
from stem_iso.brokers.redis.driver.client import RedisClient
from stem_iso.brokers.redis.keys import WORKERS

WORKER_LIFE = 30.0  # seconds

_decoder = msgspec.msgpack.Decoder(WorkerInfo)


def beat(client: RedisClient, worker: WorkerInfo) -> None:
    client.call("worker", WORKERS, "beat", WORKER_LIFE, worker.id, worker.machine, worker.boot, msgspec.msgpack.encode(worker))


def remove(client: RedisClient, id: str, last: WorkerInfo | None) -> None:
    """`last`: its last heartbeat."""
    machine, boot = ("", "") if last is None else (last.machine, last.boot)
    client.call("worker", WORKERS, "remove", WORKER_LIFE, id, machine, boot)


def remove_dead(client: RedisClient, dead: WorkerInfo) -> None:
    client.call("worker", WORKERS, "remove_dead", WORKER_LIFE, dead.id, dead.machine, dead.boot)


def neighbours(client: RedisClient, machine: str) -> list[WorkerInfo]:
    found: list[WorkerInfo] = []
    for info in client.call("worker", WORKERS, "neighbours", WORKER_LIFE, "", machine):
        with suppress(*DAMAGE):  # a record that nobody can read is nobody's to judge
            found.append(_decoder.decode(info))
    return found


def workers(client: RedisClient) -> list[WorkerInfo]:
    """By id; seen at the server's time, and silent by its clock."""
    answer = client.call("worker", WORKERS, "list", WORKER_LIFE)
    found = []
    for id, info, seen, silent in zip(*[iter(answer)] * 4, strict=True):
        try:
            found.append(msgspec.structs.replace(_decoder.decode(info), seen_at=float(seen), silent_for=float(silent)))
        except DAMAGE:
            log_corrupt(f"what worker {text(id)} wrote about itself")
    return sorted(found, key=lambda worker: worker.id)


def worker_ids(client: RedisClient, boots: Set[str]) -> dict[str, str]:
    """Boot -> id, of those that live."""
    return {worker.boot: worker.id for worker in workers(client) if worker.boot in boots}
