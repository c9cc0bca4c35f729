"""`stem-iso worker --reload`: a worker for development, started anew whenever a Python file below the working folder changes.

    watcher (this process) ── starts ──> python -m stem_iso.worker, the same options
        a file changes ── TERM, after GRACE at once ──> ended ── starts ──> the next, with the new code
        Ctrl-C, TERM ── passed on ──> ended ──> this process ends, with its code

A worker that ends by itself, since its module does not import, is started again with the next change. What runs while a file changes has
GRACE seconds to end, and then is killed and given back to the queue.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import FrameType

import click

from stem_iso.errors import InvalidOptions
from stem_iso.isolate import interpreter

GRACE = 2.0  # seconds
LOOK_EVERY = 200  # milliseconds between two looks at the worker, while no file changes


class Reloader:
    """One worker after the other. Signals are taken by the main thread of a process that does nothing else."""

    def __init__(self, options: Sequence[str]) -> None:
        self._command = [sys.executable, *interpreter.arguments(), "-m", "stem_iso.worker", *options]
        self._worker: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()

    def run(self) -> int:
        """The exit code of the last worker. Raises InvalidOptions where watchfiles is not installed."""
        try:
            from watchfiles import PythonFilter, watch
        except ImportError:
            raise InvalidOptions("--reload needs watchfiles: pip install 'stem_iso[reload]'") from None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        self._start()
        changes = watch(
            os.getcwd(),
            watch_filter=PythonFilter(),
            stop_event=self._stopping,
            rust_timeout=LOOK_EVERY,
            yield_on_timeout=True,
            raise_interrupt=False,
        )
        for changed in changes:
            if self._stopping.is_set():
                break
            if changed:
                paths = sorted({os.path.relpath(path) for _, path in changed})
                click.echo(f"changed: {', '.join(paths)}; the worker starts anew", err=True)
                self._end()
                self._start()
            elif self._worker is not None and self._worker.poll() is not None:
                click.echo(f"the worker has ended ({self._worker.returncode}); it starts anew with the next change", err=True)
                self._worker = None
        return 0 if self._worker is None else self._worker.wait()

    def _start(self) -> None:
        self._worker = subprocess.Popen(self._command, process_group=0)  # Ctrl-C reaches it through this process alone

    def _end(self) -> None:
        if self._worker is None:
            return
        self._worker.send_signal(signal.SIGTERM)
        try:
            self._worker.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._worker.send_signal(signal.SIGQUIT)
            self._worker.wait()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """A second one stops at once, as a worker's does."""
        if self._worker is not None and self._worker.poll() is None:
            self._worker.send_signal(signal.SIGTERM)
        self._stopping.set()
