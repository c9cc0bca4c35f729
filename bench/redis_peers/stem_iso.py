from __future__ import annotations

import sys
from typing import Any

from bench.redis_peers.place import URL, say_when
from stem_iso import Stem

app = Stem(URL)
COMMAND = [sys.executable, "-m", "stem_iso.worker", "-A", "bench.redis_peers.stem_iso:app", "-c", "2", "-l", "error"]


@app.task(name="bench.noop", isolate=True, soft_time_limit=30, hard_time_limit=60)
def same(value: int) -> int:
    return value


@app.task(name="bench.when", isolate=True, soft_time_limit=30, hard_time_limit=60)
def began() -> float:
    return say_when()


def noop(value: int) -> None:
    same.enqueue(value)


def when() -> None:
    began.enqueue()


def left(server: Any) -> int:
    return int(server.hlen("si:{default}:m"))
