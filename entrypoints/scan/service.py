"""The worker, as an operator runs it: started by command, stopped by TERM; but it does not outlive this program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stem_iso.worker.owned_worker import OwnedWorker

PATIENCE = 15.0  # seconds for a worker that was asked to stop at once


@contextmanager
def worker(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of the scanner for as long as the block runs. An error in the block, Ctrl-C included, stops its tasks at once."""
    command = [sys.executable, "-m", "stem_iso.worker", "-A", "entrypoints.scan.tasks:app", "-l", "warning"]
    with log.open("wb") as output:
        # A process group of its own: Ctrl-C reaches this program alone, which then says once what it wants.
        process = OwnedWorker(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=_root(), process_group=0)
    try:
        yield process
    except BaseException:
        process.send_signal(signal.SIGQUIT)
        raise
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _root() -> str:
    """Where `entrypoints` lies, so that the worker finds it from whatever folder this program was started."""
    return os.fspath(Path(__file__).resolve().parents[2])
