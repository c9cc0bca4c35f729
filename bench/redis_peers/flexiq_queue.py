"""A worker of flexiq with two processes, and its two tasks, as `flexiq` and `flexiq_tuned` have them: they differ in settings alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from flexiq import Queue

from bench.redis_peers.place import URL, say_when

BIN = Path(sys.executable).parent
PREFORK = ["env", f"PATH={BIN}:{os.environ['PATH']}"]  # it starts `python`, whichever is found first


class Peer(NamedTuple):
    queue: Queue
    command: list[str]
    noop: Callable[[int], None]
    when: Callable[[], None]
    left: Callable[[Any], int]


def peer(module: str, **settings: Any) -> Peer:
    """`module`: where the worker finds `queue`."""
    queue = Queue(backend="redis", db_url=URL, workers=2, **settings)

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

    return Peer(queue, [*PREFORK, str(BIN / "flexiq"), "worker", "--app", f"{module}:queue", "--pool", "prefork"], noop, when, left)
