"""stem_iso's IsolatePool: each call runs alone in an isolate, which is killed at the call's limit with all that it started."""

from __future__ import annotations

import bench.systems as systems
from bench import handlers

SYSTEM = systems.System(
    name="isolate_pool",
    kind="pool",
    requirements=(),  # the checkout that is measured
    advice="https://github.com/stem-iso/stem_iso/blob/main/docs/pool.md",
    settings={"default": {}, "best": {"spares": 1}},
)


class Adapter(systems.Adapter):
    timeouts = ("TimeoutException",)
    crashes = ("IsolateCrashed",)
    memory = ("MemoryLimitExceeded",)

    def __init__(self, place: systems.Place) -> None:
        from stem_iso import IsolatePool

        self._pool = IsolatePool(place.workers, **place.settings)
        self._pool.submit(handlers.echo, "").result()

    def run(self, handler: str, ledger: str, limit: float | None) -> object:
        executor = self._pool if limit is None else self._pool.with_limits(hard=limit)
        return executor.submit(handlers.run, handler, ledger).result()

    def echo(self, count: int, payload: bytes) -> None:
        for future in [self._pool.submit(handlers.echo, payload) for _ in range(count)]:
            future.result()

    def close(self) -> None:
        self._pool.kill_workers()
        self._pool.shutdown()
