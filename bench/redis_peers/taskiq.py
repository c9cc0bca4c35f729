from __future__ import annotations

import asyncio
import sys
from typing import Any

from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from bench.redis_peers.place import URL, say_when

results: Any = RedisAsyncResultBackend(URL)
broker = ListQueueBroker(URL).with_result_backend(results)
COMMAND = [sys.executable, "-m", "taskiq", "worker", "bench.redis_peers.taskiq:broker", "--workers", "2", "--log-level", "ERROR"]
_loop = asyncio.new_event_loop()


@broker.task
async def same(value: int) -> int:
    return value


@broker.task
async def began() -> float:
    return say_when()


def noop(value: int) -> None:
    _loop.run_until_complete(same.kiq(value))


def when() -> None:
    _loop.run_until_complete(began.kiq())


def left(server: Any) -> int:
    """Taken from the list before they run, up to two hundred: a small part of the whole."""
    return int(server.llen("taskiq"))
