from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from huey import RedisHuey

from bench.redis_peers.place import URL, say_when

huey = RedisHuey("bench", url=URL)
COMMAND = [str(Path(sys.executable).parent / "huey_consumer"), "bench.redis_peers.huey.huey", "-w", "2", "-k", "process", "-q"]


@huey.task()
def same(value: int) -> int:
    return value


@huey.task()
def began() -> float:
    return say_when()


def noop(value: int) -> None:
    same(value)


def when() -> None:
    began()


def left(server: Any) -> int:
    return int(server.llen("huey.redis.bench"))
