"""An operator, for tests: sends commands, waits for what workers answer, and looks at what the broker shows of them."""

from __future__ import annotations

import uuid
from typing import Any

from stem_iso import Stem
from stem_iso.brokers.base import WorkerInfo
from stem_iso.brokers.operations import Command, CommandReply
from stem_iso.task import histogram
from stem_iso.testing import eventually
from stem_iso.worker.reporting.counters import TaskFigures

BOUND = 30.0


class Operator:
    def __init__(self, app: Stem) -> None:
        self.broker = app.open_broker()

    def send(self, worker_id: str, action: str, value: Any = None) -> str:
        command = Command(id=uuid.uuid4().hex, worker_id=worker_id, action=action, value=value)
        self.broker.send_command(command)
        return command.id

    def reply(self, command_id: str, count: int = 1) -> list[CommandReply]:
        return eventually(lambda: len(found := self.broker.replies(command_id)) >= count and found, within=BOUND) or []

    def order(self, worker_id: str, action: str, value: Any = None) -> CommandReply:
        """The reply to it."""
        [reply] = self.reply(self.send(worker_id, action, value))
        return reply

    def pause(self, name: str, task: bool = False) -> None:
        """All workers have obeyed when this returns: those that live."""
        assert self.broker.pause(name, task)
        self.reply(self.send("*", "pauses"), len(self.broker.workers()))

    def resume(self, name: str, task: bool = False) -> None:
        assert self.broker.resume(name, task)
        self.send("*", "pauses")

    def worker(self, worker_id: str) -> WorkerInfo:
        return next(each for each in self.broker.workers() if each.id == worker_id)

    def counts(self) -> dict[tuple[str, str], TaskFigures]:
        """Of all minutes, by queue and name."""
        found: dict[tuple[str, str], TaskFigures] = {}
        for row in self.broker.counts(0, 1 << 40):
            found.setdefault((row.queue, row.name), TaskFigures()).add(row)
        return found

    def counted(self, name: str, queue: str = "default") -> dict[str, int]:
        """Without `enqueued`, which producers count."""
        figures = self.counts().get((queue, name), TaskFigures())
        return {word: count for word, count in figures.counts.items() if word != "enqueued"}

    def figures(self, name: str, queue: str = "default") -> TaskFigures:
        return self.counts().get((queue, name), TaskFigures())


def entries(bins: dict[int, int]) -> int:
    return sum(bins.values())


def middle(bins: dict[int, int]) -> float:
    return histogram.quantile(bins, 0.5) or 0.0
