"""Dramatiq: processes of threads; at the limit an exception waits in the thread for its next Python instruction."""

from __future__ import annotations

from typing import Any

import bench.systems as systems
from bench import handlers
from bench.queue_worker import Failed, QueueAdapter, as_text, command, served

SYSTEM = systems.System(
    name="dramatiq",
    kind="queue",
    requirements=("dramatiq==2.2.1", "redis==8.1.0"),
    advice="https://dramatiq.io/guide.html#message-time-limits",
    # Its threads, and the milliseconds between two looks at the limits.
    settings={"default": {}, "best": {"threads": 1, "interval": 50}},
    needs_redis=True,
)


class Adapter(QueueAdapter):
    timeouts = ("TimeLimitExceeded",)

    @staticmethod
    def application(place: systems.Place) -> Any:
        import dramatiq
        from dramatiq.brokers.redis import RedisBroker
        from dramatiq.middleware import TimeLimit
        from dramatiq.results import Results
        from dramatiq.results.backends.redis import RedisBackend

        broker = RedisBroker(url=place.redis)
        broker.add_middleware(Results(backend=RedisBackend(url=place.redis), store_results=True))
        if "interval" in place.settings:
            fast = TimeLimit(interval=place.settings["interval"])
            broker.middleware[[type(each) for each in broker.middleware].index(TimeLimit)] = fast
        for task in (handlers.run, handlers.echo):
            dramatiq.actor(task, broker=broker, actor_name=task.__name__, max_retries=0)
        return broker

    def command(self) -> list[str]:
        threads = ["-t", self.place.settings["threads"]] if "threads" in self.place.settings else []
        return command("dramatiq", f"{__name__}:app", "-p", self.place.workers, *threads)

    def submit(self, task: str, arguments: tuple[Any, ...], limit: float | None) -> Any:
        options = {} if limit is None else {"time_limit": limit * 1000}
        return self.app.get_actor(task).send_with_options(args=as_text(arguments), **options)

    def outcome(self, handle: Any) -> object:
        from dramatiq.results import ResultFailure, ResultTimeout

        while True:
            try:
                return handle.get_result(backend=self.app.get_results_backend(), block=True, timeout=1_000)
            except ResultTimeout:
                continue
            except ResultFailure as error:
                raise Failed(error.orig_exc_type, error.orig_exc_msg) from None


def __getattr__(name: str) -> Any:
    if name == "app":
        return served(Adapter)
    raise AttributeError(name)
