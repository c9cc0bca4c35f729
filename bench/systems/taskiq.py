"""TaskIQ: processes with an event loop each; a plain function runs in their threads or processes, and a limit ends the wait for it."""

from __future__ import annotations

from typing import Any

import bench.systems as systems
from bench import handlers
from bench.queue_worker import AsyncQueueAdapter, Failed, command, served

SYSTEM = systems.System(
    name="taskiq",
    kind="queue",
    requirements=("taskiq==0.13.0", "taskiq-redis==1.2.4", "redis==8.1.0"),
    advice="https://taskiq-python.github.io/guide/getting-started.html#timeouts",
    # "Timeouts for sync tasks don't work in python well", its worker says; the last is how often a caller looks for a result.
    settings={"default": {}, "best": {"processes": True, "interval": 0.01}},
    needs_redis=True,
)


class Adapter(AsyncQueueAdapter):
    crashes = ("BrokenProcessPool",)

    @staticmethod
    def application(place: systems.Place) -> Any:
        from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

        if place.settings.get("processes"):  # "0": its default leaves out what was sent before the first worker
            broker = RedisStreamBroker(place.redis, consumer_id="0")
        else:
            broker = ListQueueBroker(place.redis)
        broker = broker.with_result_backend(RedisAsyncResultBackend(place.redis))
        for task in (handlers.run, handlers.echo):
            broker.register_task(task, task_name=task.__name__)
        return broker

    def command(self) -> list[str]:
        pool = ["--use-process-pool", "--max-process-pool-processes", "1"] if self.place.settings.get("processes") else []
        return command("taskiq", "worker", f"{__name__}:app", "--workers", self.place.workers, "--log-level", "ERROR", *pool)

    async def submitting(self, task: str, arguments: tuple[Any, ...], limit: float | None) -> Any:
        labels = {} if limit is None else {"timeout": limit}
        return await self.app.find_task(task).kicker().with_labels(**labels).kiq(*arguments)

    async def ending(self, handle: Any) -> object:
        result = await handle.wait_result(check_interval=self.place.settings.get("interval", 0.2))
        if not result.is_err:
            return result.return_value
        raise Failed(type(result.error).__name__, result.error)


def __getattr__(name: str) -> Any:
    if name == "app":
        return served(Adapter)
    raise AttributeError(name)
