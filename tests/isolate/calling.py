"""How the tests run a call and look for survivors."""

from __future__ import annotations

import gc
import itertools
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from stem_iso.isolate.engine.engine import Engine
from stem_iso.isolate.interfaces import Answer, Boot, EntrypointRef, IsolateNotice, Job, LimitNotice, Limits
from stem_iso.isolate.keeper import process_tree
from stem_iso.outcome import Outcome, Succeeded

BOUND = 30.0  # seconds: how long a test waits for what must come soon
TARGET = "tests.isolate.handlers:boot"
_numbers = itertools.count(1)
_entries: dict[str, EntrypointRef] = {}


def entry(name: str) -> EntrypointRef:
    if name not in _entries:
        _entries[name] = EntrypointRef(next(_numbers), lambda ready: name.encode())
    return _entries[name]


class Recorder:
    """A caller that records each of its callbacks."""

    def __init__(self) -> None:
        self.sent_count = 0
        self.notices: list[LimitNotice] = []
        self.lines: list[tuple[int, str, str]] = []
        self.outcomes: list[Outcome] = []
        self.beats = 0
        self.sent_at = self.ended_at = 0.0  # monotonic
        self._changed = threading.Condition()

    def sent(self) -> None:
        self.sent_at = monotonic()
        with self._changed:
            self.sent_count += 1
            self._changed.notify_all()

    def on_message(self, payload: bytes, answer: Answer | None) -> None:
        if answer is not None:
            answer(payload.upper())

    def beat(self) -> None:
        self.beats += 1

    def limit_reached(self, notice: LimitNotice) -> None:
        with self._changed:
            self.notices.append(notice)
            self._changed.notify_all()

    def output(self, level: int, logger: str, text: str, details: bytes = b"") -> None:
        lines = text.split("\n") if logger in ("stdout", "stderr") else [text]
        self.lines += [(level, logger, line) for line in lines]

    def received(self, descriptor: int) -> None:
        os.close(descriptor)

    def ended(self, outcome: Outcome) -> None:
        self.ended_at = monotonic()
        with self._changed:
            self.outcomes.append(outcome)
            self._changed.notify_all()

    def until(self, condition: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, BOUND), "it did not come"

    def outcome(self) -> Outcome:
        self.until(lambda: self.outcomes)
        return self.outcomes[0]

    def levels(self) -> list[str]:
        return [notice.level for notice in self.notices]


class Calls:
    """An engine, and what it said of its isolates."""

    def __init__(
        self, size: int = 2, spares: int = 0, boot: bytes = b"", boot_limit: float = 60.0, target: str = TARGET, **options: Any
    ) -> None:
        self.notices: list[IsolateNotice] = []
        start = Boot(target, boot, options.pop("secrets", ()), boot_limit, largest_frame=options.pop("largest_frame", 1 << 31))
        self.engine = Engine(start, size=size, spares=spares, on_isolate=options.pop("on_isolate", self.notices.append), **options)
        self.engine.start()

    def start(self, name: str, *args: Any, priority: int = 0, caller: Recorder | None = None, **limits: Any) -> Recorder:
        recorder = caller or Recorder()
        job = Job(entry(name), pickle.dumps(args), title=f"test: {name}", limits=Limits(**limits), priority=priority)
        recorder.call = self.engine.submit(job, recorder)  # type: ignore[attr-defined]
        return recorder

    def run(self, name: str, *args: Any, **limits: Any) -> Outcome:
        return self.start(name, *args, **limits).outcome()

    def value(self, name: str, *args: Any, **limits: Any) -> Any:
        return self.unpickle(self.run(name, *args, **limits))

    def unpickle(self, outcome: Outcome) -> Any:
        assert isinstance(outcome, Succeeded), outcome
        return pickle.loads(outcome.result)

    def reasons(self) -> list[str | None]:
        return [notice.reason for notice in self.notices if notice.action == "recycled"]


def eventually(condition: Callable[[], object], what: str, bound: float = BOUND) -> None:
    """Wait for a state of the machine that nothing announces (a process of somebody else that ends), looking every millisecond."""
    waiter, end = threading.Event(), monotonic() + bound
    while not condition():
        assert monotonic() < end, what
        waiter.wait(0.001)


def pid_in(ledger: Path) -> int:
    """The pid that a handler's child wrote; waits until it is there."""
    eventually(lambda: ledger.exists() and ledger.read_text().strip(), f"nobody wrote {ledger}")
    return int(ledger.read_text())


def assert_dead(*pids: int, within: float = 0.0) -> None:
    eventually(
        lambda: all(process_tree.is_dead(pid) for pid in pids),
        f"alive: {[pid for pid in pids if not process_tree.is_dead(pid)]}",
        within or 0.001,
    )


def descendants(pid: int) -> list[int]:
    found = [child for child in process_tree.children(pid) if not process_tree.is_dead(child)]
    return found + [below for child in found for below in descendants(child)]


def own_descriptors() -> int:
    """How many this process has, without those that tests before this one have forgotten."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))
