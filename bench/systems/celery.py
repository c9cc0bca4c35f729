"""Celery: a pool of forked processes that a main process feeds, limits, kills and replaces."""

from __future__ import annotations

from typing import Any

import bench.systems as systems
from bench import handlers
from bench.queue_worker import Failed, QueueAdapter, command, served

SYSTEM = systems.System(
    name="celery",
    kind="queue",
    requirements=("celery==5.7.0", "redis==8.1.0"),
    advice="https://docs.celeryq.dev/en/stable/userguide/workers.html#time-limits",
    # What its pages name for tasks that must not be lost with their process, and that are long.
    settings={
        "default": {},
        "best": {"task_acks_late": True, "task_reject_on_worker_lost": True, "worker_prefetch_multiplier": 1},
    },
    needs_redis=True,
)


class Adapter(QueueAdapter):
    timeouts = ("TimeLimitExceeded", "SoftTimeLimitExceeded")
    crashes = ("WorkerLostError",)

    @staticmethod
    def application(place: systems.Place) -> Any:
        from celery import Celery

        app = Celery("bench", broker=place.redis, backend=place.redis)
        app.conf.update(broker_connection_retry_on_startup=True, **place.settings)
        for task in (handlers.run, handlers.echo):
            app.task(task, name=task.__name__)
        app.finalize()
        return app

    def command(self) -> list[str]:
        return command("celery", "-A", f"{__name__}:app", "worker", "-P", "prefork", "-c", self.place.workers, "-l", "ERROR")

    def submit(self, task: str, arguments: tuple[Any, ...], limit: float | None) -> Any:
        return self.app.tasks[task].apply_async(arguments, time_limit=limit)

    def outcome(self, handle: Any) -> object:
        try:
            return handle.get()
        except Exception as error:
            raise Failed(type(error).__name__, error) from None


def __getattr__(name: str) -> Any:
    if name == "app":
        return served(Adapter)
    raise AttributeError(name)
