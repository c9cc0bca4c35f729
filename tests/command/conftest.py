from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from stem_iso import Stem, TaskHandle
from stem_iso.isolate.keeper import process_tree
from stem_iso.worker.os_signals import ECHO
from tests.isolate.calling import descendants, eventually

ROOT = Path(__file__).parents[2]


class Command:
    """A worker started by command, and a producer's view of its queue."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        broker: str | None = None,
        env: dict[str, str] | None = None,
        application: str = "tests.command.app:app",
        before: Callable[[], object] | None = None,
        output: int | None = None,
        cwd: Path = ROOT,
        through: tuple[str, ...] = (),
    ) -> None:
        """`before` runs in the new process, before it becomes a worker; `output` (a descriptor) takes the place of its log; `through`:
        words of a command that starts it."""
        self.folder = folder
        self._term_at = -inf
        self.broker = broker or f"sqlite:///{folder}/jobs.db"
        self.app = Stem(self.broker, default_visibility_timeout=30)
        self.log = folder / "worker.reporting.log"
        command = [*through, sys.executable, "-m", "stem_iso.worker", "-A", application, "-c", "4", *options]
        environment = {**os.environ, "STEM_ISO_TEST_BROKER": self.broker, "PYTHONUNBUFFERED": "1", **(env or {})}
        with self.log.open("ab") as log:
            stream = log.fileno() if output is None else output
            self.process = subprocess.Popen(
                command, cwd=cwd, env=environment, stdout=stream, stderr=stream, start_new_session=True, preexec_fn=before
            )

    def enqueue(self, name: str, /, **options: Any) -> TaskHandle[Any]:
        args = options.pop("args", {})
        return self.app.enqueue(name, args, **options)

    def ready(self) -> Command:
        assert self.enqueue("echo", args={"value": 1}).result(timeout=30) == 1
        return self

    @property
    def core(self) -> int:
        found = [pid for pid in process_tree.children(self.process.pid) if process_tree.title(pid).startswith("stem_iso: worker")]
        return found[0] if found else 0

    def below(self) -> list[int]:
        return descendants(self.process.pid)

    def send(self, number: int) -> None:
        """A second TERM is sent when it counts as one of its own, and not as an echo of the first."""
        if number == signal.SIGTERM:
            eventually(
                lambda: monotonic() > self._term_at + 5 * ECHO, "time stands still"
            )  # it is the worker that measures, when it has a CPU
            self._term_at = monotonic()
        self.process.send_signal(number)

    def wait(self, timeout: float = 40) -> int:
        return self.process.wait(timeout)

    def says(self, text: str) -> None:
        eventually(lambda: text in self.log.read_text(), f"the log does not say {text!r}:\n{self.log.read_text()}")

    def close(self) -> None:
        if self.process.poll() is None:
            self.send(signal.SIGQUIT)
            self.wait()
        self.app.close()


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    made: list[Command] = []

    def start(*options: str, **given: Any) -> Command:
        made.append(Command(tmp_path, *options, **given))
        return made[-1]

    yield start
    for each in made:
        each.close()
