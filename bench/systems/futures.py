"""concurrent.futures.ProcessPoolExecutor: it knows no limits; a caller can stop to wait, or end all processes and begin anew."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from threading import Lock

import bench.systems as systems
from bench import handlers

SYSTEM = systems.System(
    name="futures",
    kind="pool",
    requirements=(),
    advice="https://docs.python.org/3/library/concurrent.futures.html#concurrent.futures.ProcessPoolExecutor.kill_workers",
    settings={"default": {}, "best": {"kill": True}},
)


class Adapter(systems.Adapter):
    timeouts = ("TimeoutError",)
    crashes = ("BrokenProcessPool",)

    def __init__(self, place: systems.Place) -> None:
        self._place, self._lock = place, Lock()
        self._pool = self._new()

    def _new(self) -> ProcessPoolExecutor:
        pool = ProcessPoolExecutor(self._place.workers)
        list(pool.map(handlers.echo, [""] * self._place.workers))
        return pool

    def run(self, handler: str, ledger: str, limit: float | None) -> object:
        pool = self._pool
        try:
            return pool.submit(handlers.run, handler, ledger).result(limit)
        except TimeoutError:
            if self._place.settings.get("kill"):
                self._replace(pool)
            raise

    def _replace(self, pool: ProcessPoolExecutor) -> None:
        """What kill_workers of Python 3.14 does, which older ones must do by hand."""
        with self._lock:
            if pool is not self._pool:
                return
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)
            self._pool = self._new()

    def echo(self, count: int, payload: bytes) -> None:
        for future in [self._pool.submit(handlers.echo, payload) for _ in range(count)]:
            future.result()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
