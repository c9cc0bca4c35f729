"""billiard: Celery's pool of processes, without Celery's event loop."""

from __future__ import annotations

import bench.systems as systems
from bench import handlers

SYSTEM = systems.System(
    name="billiard",
    kind="pool",
    requirements=("billiard==4.3.2",),
    advice="https://docs.celeryq.dev/en/stable/userguide/workers.html#time-limits",
    # The hard limit is billiard's own kill; the time to wait for the result of a lost worker is ten seconds where nobody says otherwise.
    settings={"default": {}, "best": {"lost_worker_timeout": 0.1}},
)


class Adapter(systems.Adapter):
    timeouts = ("TimeLimitExceeded",)
    crashes = ("WorkerLostError",)

    def __init__(self, place: systems.Place) -> None:
        from billiard.pool import Pool

        self._pool = Pool(place.workers, enable_timeouts=True, **place.settings)
        self._pool.apply(handlers.echo, ("",))

    def run(self, handler: str, ledger: str, limit: float | None) -> object:
        try:
            return self._pool.apply_async(handlers.run, (handler, ledger), timeout=limit).get()
        except Exception as error:
            raise getattr(error, "exc", error) from None  # it comes in a wrapper

    def echo(self, count: int, payload: bytes) -> None:
        for result in [self._pool.apply_async(handlers.echo, (payload,)) for _ in range(count)]:
            result.get()

    def close(self) -> None:
        self._pool.terminate()
