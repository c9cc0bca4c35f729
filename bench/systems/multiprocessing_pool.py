"""multiprocessing.Pool: it knows no limits; a caller can stop to wait, or terminate the pool and begin anew."""

from __future__ import annotations

from multiprocessing import Pool
from threading import Lock

import bench.systems as systems
from bench import handlers

SYSTEM = systems.System(
    name="multiprocessing_pool",
    kind="pool",
    requirements=(),
    advice="https://docs.python.org/3/library/multiprocessing.html#multiprocessing.pool.AsyncResult.get",
    settings={"default": {}, "best": {"terminate": True}},
)


class Adapter(systems.Adapter):
    def __init__(self, place: systems.Place) -> None:
        self._place, self._lock = place, Lock()
        self._pool = Pool(place.workers)

    def run(self, handler: str, ledger: str, limit: float | None) -> object:
        from multiprocessing import TimeoutError

        pool = self._pool
        try:
            return pool.apply_async(handlers.run, (handler, ledger)).get(limit)
        except TimeoutError:
            if self._place.settings.get("terminate"):
                with self._lock:
                    if pool is self._pool:
                        pool.terminate()
                        self._pool = Pool(self._place.workers)
            raise

    def echo(self, count: int, payload: bytes) -> None:
        for result in [self._pool.apply_async(handlers.echo, (payload,)) for _ in range(count)]:
            result.get()

    def close(self) -> None:
        self._pool.terminate()
