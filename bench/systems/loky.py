"""loky: an executor of processes that replaces what is broken. It knows no limits; `shutdown(kill_workers=True)` ends all of it."""

from __future__ import annotations

from threading import Lock
from typing import Any

import bench.systems as systems
from bench import handlers

SYSTEM = systems.System(
    name="loky",
    kind="pool",
    requirements=("loky==3.7.0",),
    advice="https://loky.readthedocs.io/en/stable/API.html#loky.get_reusable_executor",
    settings={"default": {}, "best": {"kill": True}},
)


class Adapter(systems.Adapter):
    crashes = ("TerminatedWorkerError", "BrokenProcessPool")

    def __init__(self, place: systems.Place) -> None:
        self._place, self._lock = place, Lock()
        self._warm: Any = None
        self._executor()

    def _executor(self) -> Any:
        from loky import get_reusable_executor

        executor = get_reusable_executor(max_workers=self._place.workers)
        if executor is not self._warm:  # processes start on demand and import on demand, and a limit would count that
            list(executor.map(handlers.pause, [0.2] * self._place.workers))
            self._warm = executor
        return executor

    def run(self, handler: str, ledger: str, limit: float | None) -> object:
        with self._lock:
            executor = self._executor()
            future = executor.submit(handlers.run, handler, ledger)
        try:
            return future.result(limit)
        except TimeoutError:
            if self._place.settings.get("kill"):
                with self._lock:
                    executor.shutdown(kill_workers=True)
            raise

    def echo(self, count: int, payload: bytes) -> None:
        executor = self._executor()
        for future in [executor.submit(handlers.echo, payload) for _ in range(count)]:
            future.result()

    def close(self) -> None:
        self._executor().shutdown(kill_workers=True)
