"""Huey: threads or forked processes; an alarm interrupts a task in a process at its limit, and nothing one in a thread."""

from __future__ import annotations

from typing import Any

import bench.systems as systems
from bench import handlers
from bench.queue_worker import Failed, QueueAdapter, command, served

SYSTEM = systems.System(
    name="huey",
    kind="queue",
    requirements=("huey==3.5.4", "redis==8.1.0"),
    advice="https://huey.readthedocs.io/en/latest/guide.html",
    settings={
        "default": {"kind": "thread"},
        "best": {"kind": "process"},
        "sqlite thread": {"kind": "thread", "store": "sqlite"},
        "sqlite process": {"kind": "process", "store": "sqlite"},
    },
    needs_redis=True,
)


class Adapter(QueueAdapter):
    timeouts = ("TaskTimeout",)

    @staticmethod
    def application(place: systems.Place) -> Any:
        from huey import RedisHuey, SqliteHuey

        if place.settings.get("store") == "sqlite":
            app = SqliteHuey("bench", filename=str(place.folder / "huey.db"))
        else:
            app = RedisHuey("bench", url=place.redis)
        app.bench = {task.__name__: app.task(name=task.__name__)(task) for task in (handlers.run, handlers.echo)}
        return app

    def command(self) -> list[str]:
        return command("huey.bin.huey_consumer", f"{__name__}.app", "-w", self.place.workers, "-k", self.place.settings["kind"], "-q")

    def submit(self, task: str, arguments: tuple[Any, ...], limit: float | None) -> Any:
        return self.app.bench[task](*arguments, timeout=limit)

    def outcome(self, handle: Any) -> object:
        from huey.exceptions import TaskException

        try:
            return handle.get(blocking=True)
        except TaskException as error:
            kind, _, text = str(error.metadata["error"]).partition("(")
            raise Failed(kind, text) from None


def __getattr__(name: str) -> Any:
    if name == "app":
        return served(Adapter)
    raise AttributeError(name)
