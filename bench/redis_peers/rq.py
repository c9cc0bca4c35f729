from __future__ import annotations

import sys
from typing import Any

import redis
from rq import Queue

from bench.redis_peers.place import URL, say_when

queue = Queue("bench", connection=redis.Redis.from_url(URL))
COMMAND = [sys.executable, "-m", "rq.cli", "worker-pool", "bench", "-n", "2", "-u", URL, "-q"]


def same(value: int) -> int:
    return value


def noop(value: int) -> None:
    queue.enqueue(same, value, job_timeout=60)


def when() -> None:
    queue.enqueue(say_when, job_timeout=60)


def many(values: range) -> None:
    queue.enqueue_many([Queue.prepare_data(same, (value,), timeout=60) for value in values])


def left(server: Any) -> int:
    return int(server.llen("rq:queue:bench"))
