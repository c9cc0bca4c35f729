"""One hostile task beside innocent ones, on a worker by command: how it ended, who survived it, whose end came late.

neighbour ───────────────────────────────────────────────> must succeed in the process and attempt in which it began
overdue ───────────> its limit ──> on time? ── again for each hostile task
hostile.NAME ──> ended ── on time? survivors? zombies? ── echo must be served ── state must be that of a fresh process
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from stem_iso import Stem, TaskFailed, TaskHandle, TaskStatus
from stem_iso.events import AnyEvent, IsolateEvent, TimeoutEvent
from tests.command.conftest import Command
from tests.hostile.app import app as hostile_app
from tests.hostile.expected import EXPECTED, LATER, TIMEOUT
from tests.hostile.survivors import began, survivors, survivors_after, zombies_after
from tests.isolate.calling import eventually

APPLICATION = "tests.hostile.app:app"
QUIET = 1.0  # seconds without an event after which there may be no worker any more
BOUND = 60.0  # seconds for one hostile task on any machine
REAPED = 1.0  # seconds: how long a zombie may be there
LATE = 5.0  # seconds after its limit within which the end of a task is known, on any machine; what it is on this one, `bench.hostile` says


@dataclass(frozen=True)
class Finding:
    name: str
    status: TaskStatus
    complaint: str
    survivors: tuple[str, ...]
    zombies: tuple[str, ...]
    late: float | None  # seconds from the hard limit until the end was known; None where it ended otherwise
    neighbour_late: float  # the same of an innocent task that ran beside it

    @property
    def faults(self) -> list[str]:
        late = [("it", self.late or 0.0), ("its neighbour", self.neighbour_late)]
        return [
            *([self.complaint] if self.complaint else []),
            *(f"survived: {line}" for line in self.survivors),
            *(f"not reaped: {line}" for line in self.zombies),
            *(f"the end of {who} was known {seconds:.1f} s after its limit" for who, seconds in late if seconds > LATE),
        ]


class Running(NamedTuple):
    name: str
    handle: TaskHandle[object]
    ledger: Path
    marker: str
    beside: TaskHandle[object]


class Proving:
    """A worker of all hostile handlers. Use it in a `with`."""

    def __init__(self, folder: Path, *options: str, query: str = "", before: Callable[[], object] | None = None) -> None:
        """`before`: as of `Command`."""
        self.folder = folder
        self._query, self._options, self._before = query, options, before
        self.stuck: list[IsolateEvent] = []
        self.hard: dict[str, TimeoutEvent] = {}  # by task; they come a little after the task's end
        self._leaving = False

    def __enter__(self) -> Proving:
        self.broker = f"sqlite:///{self.folder}/jobs.db{self._query}"
        options = ("--broker", self.broker, *self._options)
        self.command = Command(self.folder, *options, broker=self.broker, application=APPLICATION, before=self._before)
        self.app: Stem = self.command.app
        try:
            self.echo(0)
            self.fresh = self.state()
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
                if isinstance(event, IsolateEvent) and event.action == "stuck":
                    self.stuck.append(event)
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

    def start(self, name: str) -> Running:
        """The task and, beside it, an innocent one that will reach its limit."""
        marker = uuid.uuid4().hex
        ledger = self.folder / f"{name}-{marker}"
        beside = self.app.enqueue("innocent.overdue")
        return Running(name, self.app.enqueue(f"hostile.{name}", {"ledger": str(ledger), "marker": marker}), ledger, marker, beside)

    def end(self, running: Running) -> Finding:
        """Look for survivors in the instant in which the end is known."""
        name, handle, ledger, marker, beside = running
        late = self._late(running)
        left = survivors(ledger, marker, handle.id) if name not in LATER else survivors_after(REAPED, ledger, marker, handle.id)
        zombies = zombies_after(REAPED, ledger, self.command.process.pid)
        status = handle.status()
        neighbour_late = self.late_overdue(beside)
        return Finding(name, status, EXPECTED[name].complaint(status), tuple(left), tuple(zombies), late, neighbour_late)

    def _late(self, running: Running) -> float | None:
        """Wait for its end. Seconds from its hard limit until the worker had it stored; None where it ended otherwise."""
        status = self.ended(running.handle)
        start = began(running.ledger)
        return None if start is None else _lateness(status, start)

    def late_overdue(self, handle: TaskHandle[object]) -> float:
        """The same of an `innocent.overdue`."""
        status = self.ended(handle)
        late = _lateness(status, status.progress.data) if status.progress is not None else None
        assert late is not None, f"an innocent task ended otherwise than at its limit: {status}"
        return late

    def ended(self, handle: TaskHandle[object]) -> TaskStatus:
        """Wait for its end."""
        with suppress(TaskFailed):
            handle.result(timeout=BOUND)
        return handle.status()

    def run(self, name: str) -> Finding:
        return self.end(self.start(name))

    def state(self) -> dict[str, str]:
        """What a handler feels of its process now."""
        found = self.app.enqueue("innocent.state").result(timeout=BOUND)
        assert isinstance(found, dict)
        return found


def _lateness(status: TaskStatus, began: float) -> float | None:
    if status.error is None or status.error.type != TIMEOUT or status.finished_at is None:
        return None
    return status.finished_at.timestamp() - began - (hostile_app.options_of(status.name).hard_time_limit or 0.0)
