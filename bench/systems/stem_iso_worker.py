"""stem_iso: a worker by command, whose isolates are processes that its core limits and kills with all that they started."""

from __future__ import annotations

from typing import Any

import bench.systems as systems
from bench import handlers
from bench.queue_worker import Failed, QueueAdapter, command, served

SYSTEM = systems.System(
    name="stem_iso_worker",
    kind="queue",
    requirements=(),
    advice="https://github.com/stem-iso/stem_iso/blob/main/docs/limits.md",
    settings={"default": {}, "best": {"spares": 2}, "redis default": {"store": "redis"}, "redis best": {"store": "redis", "spares": 2}},
    needs_redis=True,
)

PARAMETERS = {"run": ("name", "ledger"), "echo": ("payload",)}


class Adapter(QueueAdapter):
    timeouts = ("TimeoutException",)
    crashes = ("IsolateCrashed",)
    memory = ("MemoryLimitExceeded",)

    @staticmethod
    def application(place: systems.Place) -> Any:
        from stem_iso import Stem

        app = Stem(place.redis if place.settings.get("store") else f"sqlite:///{place.folder}/queue.db", max_payload_bytes=64 << 20)
        for task in (handlers.run, handlers.echo):
            app.task(name=task.__name__, isolate=True, max_retries=0)(task)
        return app

    def command(self) -> list[str]:
        spares = ["--spares", self.place.settings["spares"]] if "spares" in self.place.settings else []
        return command("stem_iso.worker", "-A", f"{__name__}:app", "-c", self.place.workers, "-l", "error", *spares)

    def submit(self, task: str, arguments: tuple[Any, ...], limit: float | None) -> Any:
        return self.app.enqueue(task, dict(zip(PARAMETERS[task], arguments, strict=True)), hard_time_limit=limit)

    def outcome(self, handle: Any) -> object:
        from stem_iso.errors import TaskFailed

        try:
            return handle.result()
        except TaskFailed as failed:
            raise Failed(failed.error.type.rpartition(".")[2], failed.error.message) from None


def __getattr__(name: str) -> Any:
    if name == "app":
        return served(Adapter)
    raise AttributeError(name)
