"""One hostile task beside an innocent one, on a worker by command: how it ended, and who survived it.

neighbour ───────────────────────────────────────────────> must succeed in the process and attempt in which it began
hostile.NAME ──> ended ── survivors? ── echo must be served
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stem_iso import Stem, TaskFailed, TaskHandle, TaskStatus
from stem_iso.events import AnyEvent, TimeoutEvent
from tests.command.conftest import Command
from tests.hostile.expected import EXPECTED
from tests.hostile.survivors import survivors
from tests.isolate.calling import eventually

APPLICATION = "tests.hostile.app:app"
QUIET = 1.0  # seconds without an event after which there may be no worker any more
BOUND = 60.0  # seconds for one hostile task on any machine


@dataclass(frozen=True)
class Finding:
    name: str
    status: TaskStatus
    complaint: str
    survivors: tuple[str, ...]


class Proving:
    """A worker of all hostile handlers. Use it in a `with`."""

    def __init__(self, folder: Path, *options: str, query: str = "") -> None:
        self.folder = folder
        self._query, self._options = query, options
        self.hard: dict[str, TimeoutEvent] = {}  # by task; they come a little after the task's end
        self._leaving = False

    def __enter__(self) -> Proving:
        self.broker = f"sqlite:///{self.folder}/jobs.db{self._query}"
        self.command = Command(self.folder, "--broker", self.broker, *self._options, broker=self.broker, application=APPLICATION)
        self.app: Stem = self.command.app
        try:
            self.echo(0)
        except BaseException:
            self.command.close()
            raise
        self._listener = threading.Thread(target=self._listen, args=(self.app.events(timeout=QUIET),))
        self._listener.start()
        self._processes = self._core_and_keeper()
        return self

    def __exit__(self, *error: object) -> None:
        self.command.close()
        self._leaving = True
        self._listener.join()

    def _listen(self, events: Iterator[AnyEvent]) -> None:
        while not self._leaving:
            for event in events:  # the neighbour's heartbeats alone are more than one a second
                if isinstance(event, TimeoutEvent) and event.level == "hard":
                    self.hard[event.task_id] = event
            events = self.app.events(timeout=QUIET)

    def _core_and_keeper(self) -> tuple[int, int]:
        return self.command.process.pid, self.command.core

    def assert_unharmed(self) -> None:
        """Launcher and core are the processes that they were, and serve."""
        self.echo(1)
        assert self.command.process.poll() is None
        assert self._core_and_keeper() == self._processes

    def echo(self, value: int) -> None:
        try:
            assert self.app.enqueue("innocent.echo", {"value": value}).result(timeout=BOUND) == value
        except TimeoutError:
            log = [line for line in self.command.log.read_text(errors="replace").splitlines() if " INFO " not in line]
            raise AssertionError("the next task was not served; the worker's log ends\n" + "\n".join(log[-40:])) from None

    @contextmanager
    def neighbour(self) -> Iterator[None]:
        """An innocent task beside whatever the block does."""
        stop = self.folder / f"{uuid.uuid4().hex}.stop"
        handle = self.app.enqueue("innocent.neighbour", {"stop": str(stop)})
        eventually(stop.with_suffix(".up").exists, "the neighbour did not start")
        try:
            yield
        finally:
            stop.touch()
        before, after, attempt = handle.result(timeout=BOUND)
        assert (before, 0, 0) == (after, attempt, handle.status().redeliveries), "the neighbour was disturbed"

    def start(self, name: str) -> tuple[TaskHandle[object], Path, str]:
        """The task, its ledger and its marker."""
        marker = uuid.uuid4().hex
        ledger = self.folder / f"{name}-{marker}"
        return self.app.enqueue(f"hostile.{name}", {"ledger": str(ledger), "marker": marker}), ledger, marker

    def end(self, name: str, handle: TaskHandle[object], ledger: Path, marker: str) -> Finding:
        """Look for survivors in the instant in which the end is known."""
        with suppress(TaskFailed):
            handle.result(timeout=BOUND)
        left = tuple(survivors(ledger, marker, handle.id))
        status = handle.status()
        return Finding(name, status, EXPECTED[name].complaint(status), left)

    def run(self, name: str) -> Finding:
        return self.end(name, *self.start(name))
