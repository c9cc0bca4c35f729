"""What is shown while the scan runs: a bar on a terminal, a line now and then elsewhere, and at once what reached a limit."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path

from entrypoints.scan.tasks import HARD, app
from stem_iso.events import AnyEvent, CompletedEvent, FailedEvent, TimeoutEvent
from stem_iso.printable import one_line

FRAME = re.compile(r'File "(.*)", line (\d+) in (.*)')
WIDTH = 30
EVERY = 2.0  # seconds between the lines of what is no terminal
SILENCE = HARD + 0.5  # nothing can be silent for longer while there is work: after it, look whether there still is


class Live:
    """Follows the events of all workers on a thread of its own. They may be dropped when nobody keeps up, so they are for showing alone."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._shown_at = total, 0, 0.0
        self._patterns: Mapping[str, str] = {}  # by task id
        self._over = False
        self._bar = sys.stdout.isatty()
        self.killed: dict[str, TimeoutEvent] = {}  # by task id; guarded by the condition
        self._changed = threading.Condition()

    @contextmanager
    def following(self, patterns: Mapping[str, str]) -> Iterator[None]:
        """While the block runs. `patterns` may still be growing."""
        self._patterns = patterns
        thread = threading.Thread(target=self._listen)
        thread.start()
        try:
            yield
        finally:
            self._over = True
            thread.join()

    def _listen(self) -> None:
        while not self._over:
            for event in app.events(timeout=SILENCE):
                self._on_event(event)
                if self._over:
                    return

    def _on_event(self, event: AnyEvent) -> None:
        if self._over:
            return
        if isinstance(event, CompletedEvent | FailedEvent):
            self._done += 1
            self._show()
        elif isinstance(event, TimeoutEvent):
            if event.level == "hard":
                with self._changed:
                    self.killed[event.task_id] = event
                    self._changed.notify()
            self._print(one_timeout(event, self._patterns.get(event.task_id, "?")))

    def finish(self, failed: Set[str]) -> None:
        """All results are there; how those that failed were killed is printed right after them, where it was not dropped."""
        with self._changed:
            self._changed.wait_for(lambda: failed <= set(self.killed), timeout=SILENCE)
        self._done, self._shown_at = self._total, 0.0
        self._show()
        if self._bar:
            print()

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._shown_at < (0.05 if self._bar else EVERY):
            return
        self._shown_at = now
        done = min(self._done, self._total)
        if self._bar:
            filled = WIDTH * done // max(1, self._total)
            print(f"\r[{'#' * filled}{'.' * (WIDTH - filled)}] {done}/{self._total} batches", end="", flush=True)
        else:
            print(f"{done}/{self._total} batches", flush=True)

    def _print(self, text: str) -> None:
        shown = one_line(text)  # names of files and patterns are anybody's
        print(f"\r\033[K{shown}" if self._bar else shown, flush=True)
        if self._bar:
            self._shown_at = 0.0


def one_timeout(event: TimeoutEvent, pattern: str) -> str:
    """One sentence about a limit."""
    if event.level == "soft":
        return f"! {pattern} has run for {event.elapsed:.3f} s (soft limit {event.limit:g} s) and is in {place(event.stack)}"
    late = "" if event.dead_at is None else f", dead {event.dead_at * 1000:.1f} ms after it"
    return f"x {pattern} was killed at its hard limit of {event.limit:g} s{late}"


def place(stack: str) -> str:
    """Where the handler was, outermost first: "scan (tasks.py:28), count (tasks.py:35)"."""
    frames = FRAME.findall(stack)
    return ", ".join(f"{function} ({Path(file).name}:{line})" for file, line, function in frames) or "a place that cannot be seen"
