from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from flexiq import Queue

from bench.redis_peers.place import URL, say_when

queue = Queue(backend="redis", db_url=URL, workers=2)
BIN = Path(sys.executable).parent
PREFORK = ["env", f"PATH={BIN}:{os.environ['PATH']}"]  # it starts `python`, whichever is found first
COMMAND = [*PREFORK, str(BIN / "flexiq"), "worker", "--app", "bench.redis_peers.flexiq:queue", "--pool", "prefork"]


@queue.task(name="bench.noop")
def same(value: int) -> int:
    return value


@queue.task(name="bench.when")
def began() -> float:
    return say_when()


def noop(value: int) -> None:
    same.delay(value)


def when() -> None:
    began.delay()


def left(server: Any) -> int:
    counts = queue.stats()
    return int(counts["pending"] + counts["running"])
