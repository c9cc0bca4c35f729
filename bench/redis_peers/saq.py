from __future__ import annotations

import asyncio
import sys
from typing import Any

from saq import Queue

from bench.redis_peers.place import URL, say_when

queue = Queue.from_url(URL)
_loop = asyncio.new_event_loop()
COMMAND = [sys.executable, "-m", "saq", "bench.redis_peers.saq.settings", "--workers", "1", "--quiet"]


async def same(context: Any, *, value: int) -> int:
    return value


async def began(context: Any) -> float:
    return say_when()


settings = {"queue": queue, "functions": [same, began], "concurrency": 2}


def noop(value: int) -> None:
    _loop.run_until_complete(queue.enqueue("same", value=value, timeout=60))


def when() -> None:
    _loop.run_until_complete(queue.enqueue("began", timeout=60))


def left(server: Any) -> int:
    return int(server.llen("saq:default:queued")) + int(server.llen("saq:default:active"))
