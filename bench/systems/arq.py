"""arq: coroutines on one event loop; a plain function must be run in an executor, which its author shows, and which nothing ends."""

from __future__ import annotations

import asyncio
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import Any

import bench.systems as systems
from bench import handlers
from bench.queue_worker import LIMITS, AsyncQueueAdapter, Failed, command, declared, served, worker_place

SYSTEM = systems.System(
    name="arq",
    kind="queue",
    requirements=("arq==0.28.0", "redis==5.3.1"),
    advice="https://arq-docs.helpmanual.io/#synchronous-jobs",
    # The last is how often a caller looks for a result.
    settings={"default": {}, "best": {"executor": True, "interval": 0.01}},
    needs_redis=True,
)
FREE = 86_400  # seconds, for calls without a limit: a function has one always


@cache
def executor() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(worker_place().workers)


async def call(context: Any, task: str, *arguments: Any) -> Any:
    if not worker_place().settings.get("executor"):
        return getattr(handlers, task)(*arguments)
    return await asyncio.get_running_loop().run_in_executor(executor(), getattr(handlers, task), *arguments)


class Adapter(AsyncQueueAdapter):
    crashes = ("BrokenProcessPool",)

    @staticmethod
    def application(place: systems.Place) -> Any:
        from arq.connections import RedisSettings

        return RedisSettings.from_dsn(place.redis)

    def command(self) -> list[str]:
        return command("arq", f"{__name__}.app")

    async def submitting(self, task: str, arguments: tuple[Any, ...], limit: float | None) -> Any:
        from arq import create_pool

        if not hasattr(self, "_pool"):
            self._pool = await create_pool(self.app)
        return await self._pool.enqueue_job(str(declared(limit)), task, *arguments)

    async def ending(self, handle: Any) -> object:
        from redis import RedisError

        try:
            return await handle.result(poll_delay=self.place.settings.get("interval", 0.5))
        except RedisError:
            raise
        except Exception as error:
            raise Failed(type(error).__name__, error) from None


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    from arq.worker import func

    place = worker_place()
    functions = [func(call, name=str(limit), timeout=limit or FREE, max_tries=1) for limit in (None, *LIMITS)]
    return {"functions": functions, "redis_settings": served(Adapter), "max_jobs": place.workers}
