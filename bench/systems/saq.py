"""SAQ: coroutines on one event loop; a plain function runs in a thread, which nothing ends."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import bench.systems as systems
from bench import handlers
from bench.queue_worker import AsyncQueueAdapter, Failed, as_text, command, served, worker_place

SYSTEM = systems.System(
    name="saq",
    kind="queue",
    requirements=("saq==0.26.4", "redis==7.4.1", "hiredis==3.5.0", "typing_extensions==4.16.0"),
    advice="https://saq-py.readthedocs.io/en/latest/",
    settings={"default": {}, "best": {"cancellation_hard_deadline_s": 0.1}},
    needs_redis=True,
    whole_seconds=True,
)


def run(context: Any, *, arguments: list[Any]) -> Any:
    return handlers.run(*arguments)


def echo(context: Any, *, arguments: list[Any]) -> Any:
    return handlers.echo(*arguments)


class Adapter(AsyncQueueAdapter):
    timeouts = ("TimeoutError",)

    @staticmethod
    def application(place: systems.Place) -> Any:
        from saq import Queue

        return Queue.from_url(place.redis)

    def command(self) -> list[str]:
        return command("saq", f"{__name__}.app", "--workers", 1, "--quiet")

    async def submitting(self, task: str, arguments: tuple[Any, ...], limit: float | None) -> Any:
        return await self.app.enqueue(task, arguments=as_text(arguments), timeout=0 if limit is None else int(limit), ttl=3600)

    async def ending(self, handle: Any) -> object:
        while not handle.completed:  # an end between its look and its subscription is not heard
            with suppress(TimeoutError):
                await handle.refresh(until_complete=0.2)
        if handle.status == "complete":
            return handle.result
        *_, last = (handle.error or handle.status).strip().splitlines()
        raise Failed(last.partition(":")[0], last)


def __getattr__(name: str) -> Any:
    if name == "app":
        place = worker_place()
        return {"queue": served(Adapter), "functions": [run, echo], "concurrency": place.workers, **place.settings}
    raise AttributeError(name)
