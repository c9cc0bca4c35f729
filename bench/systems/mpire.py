"""mpire: a pool of processes with a time-out for each task, which interrupts the worker by a signal."""

from __future__ import annotations

import bench.systems as systems
from bench import handlers

SYSTEM = systems.System(
    name="mpire",
    kind="pool",
    requirements=("mpire==2.10.2",),
    advice="https://sybrenjansen.github.io/mpire/usage/map/timeouts.html",
    # A worker that is interrupted is replaced; that its pool is alive between calls is what its page on keep_alive advises.
    settings={"default": {}, "best": {"keep_alive": True}},
)


class Adapter(systems.Adapter):
    crashes = ("RuntimeError",)  # "Worker-0 died unexpectedly", and no class of its own

    def __init__(self, place: systems.Place) -> None:
        from mpire import WorkerPool

        self._pool = WorkerPool(n_jobs=place.workers, **place.settings)
        self._pool.apply(handlers.echo, ("",))

    def run(self, handler: str, ledger: str, limit: float | None) -> object:
        return self._pool.apply_async(handlers.run, (handler, ledger), task_timeout=limit).get()

    def echo(self, count: int, payload: bytes) -> None:
        for result in [self._pool.apply_async(handlers.echo, (payload,)) for _ in range(count)]:
            result.get()

    def close(self) -> None:
        self._pool.terminate()
