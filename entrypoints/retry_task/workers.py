"""The workers, as an operator runs them: started by command, stopped by TERM, killed as the kernel would; or elsewhere, in containers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from stem_iso.worker.owned_worker import OwnedWorker

PATIENCE = 10.0  # seconds for a worker that was asked to stop
ROOT = Path(__file__).resolve().parents[2]


class Team(Protocol):
    """The workers of one queue. `together`: all see each other's processes."""

    together: bool

    def start(self) -> None: ...

    def kill(self, flag: Path) -> None:
        """SIGKILL to the whole of the worker that runs the task with this flag."""
        ...


class Workers:
    """Of this program. What they report goes to this program's stdout, what they log into a file."""

    together = True

    def __init__(self, queue: str, log: Path) -> None:
        self._queue, self._log = queue, log
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        command = [sys.executable, "-m", "stem_iso.worker", "-A", "entrypoints.retry_task.tasks:app"]
        options = ["-Q", self._queue, "-c", "1", "--spares", "0", "-l", "warning"]
        # The working folder stays this program's: a relative path to the broker must mean the same file.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
        with self._log.open("ab") as log:
            # A process group of its own: Ctrl-C reaches this program alone, which then says once what it wants.
            process = OwnedWorker([*command, *options], stdin=subprocess.DEVNULL, stderr=log, env=environment, process_group=0)
        self._running.append(process)

    def kill(self, flag: Path) -> None:
        """The first one, which began the task. Its launcher takes the core and the isolates with it."""
        process = self._running.pop(0)
        process.kill()
        process.wait()

    def stop(self, number: int = signal.SIGTERM) -> None:
        for process in self._running:
            process.send_signal(number)
        for process in self._running:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def alive(self) -> bool:
        return all(process.poll() is None for process in self._running)


class Elsewhere:
    """Two workers of the same queue that run already, in containers for one: they are started again by whoever started them."""

    together = False

    def start(self) -> None:
        """They are there, or come."""

    def kill(self, flag: Path) -> None:
        """By the handler, which sees the same folder."""
        from entrypoints.retry_task.tasks import order

        order(flag).touch()


@contextmanager
def workers(queue: str, log: Path) -> Iterator[Workers]:
    """Stopped when the block ends; at once where it ends with an error, Ctrl-C included."""
    made = Workers(queue, log)
    try:
        yield made
    except BaseException:
        made.stop(signal.SIGQUIT)
        raise
    finally:
        made.stop()
