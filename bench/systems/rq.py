"""RQ: a process forked for each job, which an alarm interrupts at the limit; its parent kills it a minute later."""

from __future__ import annotations

from typing import Any

import bench.systems as systems
from bench import handlers
from bench.queue_worker import Failed, QueueAdapter, command

SYSTEM = systems.System(
    name="rq",
    kind="queue",
    requirements=("rq==3.0.0", "redis==8.1.0"),
    advice="https://python-rq.org/docs/jobs/#job-timeout",
    # Its author names no setting for time-outs: the minute after which the parent kills is a constant.
    settings={"default": {}, "best": {}, "spawn": {"worker": "rq.SpawnWorker"}},
    needs_redis=True,
    whole_seconds=True,
)


class Adapter(QueueAdapter):
    timeouts = ("JobTimeoutException",)
    crashes = ("Work-horse terminated unexpectedly",)

    @staticmethod
    def application(place: systems.Place) -> Any:
        from redis import Redis
        from rq import Queue

        return Queue("bench", connection=Redis.from_url(place.redis))

    def command(self) -> list[str]:
        kind = self.place.settings.get("worker", "rq.Worker")
        return command("rq.cli", "worker-pool", "bench", "-n", self.place.workers, "-u", self.place.redis, "-w", kind, "-q")

    def submit(self, task: str, arguments: tuple[Any, ...], limit: float | None) -> Any:
        return self.app.enqueue(getattr(handlers, task), *arguments, job_timeout=-1 if limit is None else int(limit))

    def outcome(self, handle: Any) -> object:
        result = None
        while result is None:
            result = handle.latest_result(timeout=1)
        if result.type is result.Type.SUCCESSFUL:
            return result.return_value
        *_, last = result.exc_string.strip().splitlines()
        kind, _, text = last.partition(";" if last.startswith("Work-horse") else ":")
        raise Failed(kind.split(";")[0].rpartition(".")[2], text)
