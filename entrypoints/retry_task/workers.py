"""The workers, as an operator runs them: started by command, stopped by TERM, or killed as the kernel would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 10.0  # seconds for a worker that was told to stop
ROOT = Path(__file__).resolve().parents[2]


class Workers:
    """All of one queue. What they tell goes to this program's stdout, what they log into a file."""

    def __init__(self, queue: str, log: Path) -> None:
        self._queue, self._log = queue, log
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "stem_iso.worker", "-A", "entrypoints.retry_task.tasks:app"]
        options = ["-Q", self._queue, "-c", "1", "--spares", "0", "-l", "warning"]
        # The working folder stays this program's: a relative path to the broker must mean the same file.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
        with self._log.open("ab") as log:
            # A process group of its own: Ctrl-C reaches this program alone, which then says once what it wants.
            process = subprocess.Popen([*command, *options], stdin=subprocess.DEVNULL, stderr=log, env=environment, process_group=0)
        self._running.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL of its launcher, which takes the core and the isolates with it."""
        process.kill()
        process.wait()
        self._running.remove(process)

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
