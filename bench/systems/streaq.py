"""streaQ: coroutines on one event loop; a plain function runs in a thread, which is left behind at the limit."""

from __future__ import annotations

from typing import Any

import bench.systems as systems
from bench import handlers
from bench.queue_worker import LIMITS, AsyncQueueAdapter, Failed, command, declared, served

SYSTEM = systems.System(
    name="streaq",
    kind="queue",
    requirements=("streaq==7.2.0", "coredis==6.9.0"),
    advice="https://streaq.readthedocs.io/en/latest/task.html",
    settings={"default": {}, "best": {}},  # its author names none for time-outs
    needs_redis=True,
)


class Adapter(AsyncQueueAdapter):
    TOGETHER = 8  # each wait keeps a connection of a small pool

    @staticmethod
    def application(place: systems.Place) -> Any:
        from datetime import timedelta

        from streaq import Worker

        app = Worker(redis_url=place.redis, concurrency=place.workers)
        app.bench = {("echo", None): app.task(handlers.echo, name="echo", timeout=None, max_tries=1)}
        for limit in (None, *LIMITS):
            timeout = None if limit is None else timedelta(seconds=limit)
            app.bench["run", limit] = app.task(handlers.run, name=f"run {limit}", timeout=timeout, max_tries=1)
        return app

    def command(self) -> list[str]:
        return command("streaq", "run", f"{__name__}:app")

    async def submitting(self, task: str, arguments: tuple[Any, ...], limit: float | None) -> Any:
        if not hasattr(self, "_open"):
            self._open = await self.app.__aenter__()
        return await self.app.bench[task, declared(limit)].enqueue(*arguments)

    async def ending(self, handle: Any) -> object:
        result = await handle.result()
        if result.success:
            return result.result
        raise Failed(type(result.exception).__name__, result.exception)


def __getattr__(name: str) -> Any:
    if name == "app":
        return served(Adapter)
    raise AttributeError(name)
