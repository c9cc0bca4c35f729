"""flexiq: a scheduler in Rust that feeds threads, or processes of which a watchdog kills the late ones."""

from __future__ import annotations

from typing import Any

import bench.systems as systems
from bench import handlers
from bench.queue_worker import Failed, QueueAdapter, command, served

TUNED = {"scheduler_poll_interval_ms": 5, "scheduler_batch_size": 8, "push_dispatch": True}
SYSTEM = systems.System(
    name="flexiq",
    kind="queue",
    requirements=("flexiq==2.1.0",),
    advice="https://docs.byteveda.org/flexiq/python/guides/advanced-execution/prefork",
    settings={
        "default": {},
        "prefork": {"pool": "prefork"},
        "best": {"pool": "prefork", "interval": 0.005, "queue": TUNED},
        "redis default": {"store": "redis"},
        "redis best": {"store": "redis", "pool": "prefork", "interval": 0.005, "queue": TUNED},
    },
    needs_redis=True,
    whole_seconds=True,
)


class Adapter(QueueAdapter):
    timeouts = ("timed out",)

    @staticmethod
    def application(place: systems.Place) -> Any:
        from flexiq import Queue

        store = {"backend": "redis", "db_url": place.redis} if place.settings.get("store") else {"db_path": str(place.folder / "flexiq.db")}
        app = Queue(workers=place.workers, default_retry=0, **store, **place.settings.get("queue", {}))
        app.max_payload_bytes = 0  # no bound
        app.bench = {task.__name__: app.task(name=task.__name__, max_retries=0)(task) for task in (handlers.run, handlers.echo)}
        return app

    def command(self) -> list[str]:
        return command("flexiq.cli", "worker", "--app", f"{__name__}:app", "--pool", self.place.settings.get("pool", "thread"))

    def submit(self, task: str, arguments: tuple[Any, ...], limit: float | None) -> Any:
        return self.app.bench[task].apply_async(args=arguments, timeout=86_400 if limit is None else int(limit))

    def outcome(self, handle: Any) -> object:
        from flexiq.exceptions import FlexiQError

        interval = self.place.settings.get("interval")
        pace = {} if interval is None else {"poll_interval": interval, "max_poll_interval": interval}
        try:
            return handle.result(timeout=600, **pace)
        except FlexiQError as error:
            kind = "timed out" if "job timed out after" in str(error) else getattr(error, "errtype", None) or type(error).__name__
            raise Failed(kind, error) from None


def __getattr__(name: str) -> Any:
    if name == "app":
        return served(Adapter)
    raise AttributeError(name)
