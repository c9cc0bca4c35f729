"""pebble: a pool of processes with a time-out for each call. It asks with SIGTERM, and kills after three seconds."""

from __future__ import annotations

import bench.systems as systems
from bench import handlers

SYSTEM = systems.System(
    name="pebble",
    kind="pool",
    requirements=("pebble==5.2.3",),
    advice="https://pebble.readthedocs.io/en/latest/#pools",
    # What its pages name for processes that do not end at SIGTERM.
    settings={"default": {}, "best": {"term_timeout": 0.1, "sleep_unit": 0.01}},
)


class Adapter(systems.Adapter):
    crashes = ("ProcessExpired",)

    def __init__(self, place: systems.Place) -> None:
        import pebble

        for name, value in place.settings.items():
            setattr(pebble.CONSTS, name, value)
        self._pool = pebble.ProcessPool(max_workers=place.workers)
        self._pool.schedule(handlers.echo, args=("",)).result()

    def run(self, handler: str, ledger: str, limit: float | None) -> object:
        return self._pool.schedule(handlers.run, args=(handler, ledger), timeout=limit).result()

    def echo(self, count: int, payload: bytes) -> None:
        for future in [self._pool.schedule(handlers.echo, args=(payload,)) for _ in range(count)]:
            future.result()

    def close(self) -> None:
        self._pool.stop()
        self._pool.join(timeout=5)
