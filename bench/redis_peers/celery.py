from __future__ import annotations

import sys
from typing import Any

from celery import Celery

from bench.redis_peers.place import URL, say_when

app = Celery("bench.redis_peers.celery", broker=URL, backend=URL)
app.conf.broker_connection_retry_on_startup = True
COMMAND = [sys.executable, "-m", "celery", "-A", "bench.redis_peers.celery:app", "worker", "-c", "2", "-P", "prefork", "-l", "ERROR"]


@app.task(name="bench.noop", soft_time_limit=30, time_limit=60)
def same(value: int) -> int:
    return value


@app.task(name="bench.when")
def began() -> float:
    return say_when()


def noop(value: int) -> None:
    same.delay(value)


def when() -> None:
    began.delay()


def left(server: Any) -> int:
    return int(server.llen("celery")) + int(server.hlen("unacked"))
