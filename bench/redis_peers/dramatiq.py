from __future__ import annotations

import sys
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.redis_peers.place import URL, say_when

broker = RedisBroker(url=URL)
dramatiq.set_broker(broker)
COMMAND = [sys.executable, "-m", "dramatiq", "bench.redis_peers.dramatiq", "-p", "2"]


@dramatiq.actor(actor_name="same", time_limit=60_000)
def same(value: int) -> int:
    return value


@dramatiq.actor(actor_name="began", time_limit=60_000)
def began() -> None:
    say_when()


def noop(value: int) -> None:
    same.send(value)


def when() -> None:
    began.send()


def left(server: Any) -> int:
    return int(server.hlen("dramatiq:default.msgs"))
