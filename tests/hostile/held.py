"""A hostile task with a process that cannot be killed for a while: what that costs it, and what it costs the others.

its limit ── named? ── others reach their limits: on time? ── it is running still? ── let go ── its end, once
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from entrypoints.hostile.held import PLACE
from stem_iso import TaskState
from tests.hostile.app import app as hostile_app
from tests.hostile.expected import TIMEOUT, Ends
from tests.hostile.proving import BOUND, REAPED, Proving, Running
from tests.hostile.survivors import began, survivors, zombies_after
from tests.isolate.calling import eventually
from tests.isolate.debugger import trace
from tests.isolate.frozen import Frozen

QUERY = "?default_visibility_timeout=1&claim_interval=0.1"  # a lease that nobody renewed would show itself
NEIGHBOURS = 4


@dataclass(frozen=True)
class HeldFinding:
    name: str
    named: float  # seconds from its limit until the event that names it
    neighbours: tuple[float, ...]  # seconds from the limits of others until their ends were known
    faults: tuple[str, ...]


def run_held(proving: Proving, name: str) -> HeldFinding:
    """Raises pytest's Skipped where this machine cannot hold a process so."""
    before = len(proving.stuck)
    with HOLDERS[name](proving) as running:
        eventually(lambda: len(proving.stuck) > before, "nobody named what cannot be killed", BOUND)
        event = proving.stuck[before]
        others = [proving.app.enqueue("innocent.overdue") for _ in range(NEIGHBOURS)]
        neighbours = tuple(proving.late_overdue(each) for each in others)
        meanwhile = running.handle.status()
    status = proving.ended(running.handle)
    start = began(running.ledger)
    assert start is not None
    limit = hostile_app.options_of(f"hostile.{name}").hard_time_limit or 0.0
    left = [
        *survivors(running.ledger, running.marker, running.handle.id),
        *zombies_after(REAPED, running.ledger, proving.command.process.pid),
    ]
    found = {
        f"it was {meanwhile.state} while its process lived": meanwhile.state is not TaskState.RUNNING,
        f"it was delivered {status.redeliveries + 1} times": status.redeliveries > 0,
        f"it was named {len(proving.stuck) - before} times": len(proving.stuck) != before + 1,
        f"left: {left}": bool(left),
        Ends(TIMEOUT).complaint(status): bool(Ends(TIMEOUT).complaint(status)),
    }
    named = event.at - start - limit
    return HeldFinding(name, named, neighbours, tuple(fault for fault, is_so in found.items() if is_so))


@contextmanager
def _foreign(proving: Proving) -> Iterator[Running]:
    running = proving.start("foreign_child")
    pid = _pid(running, 2)
    try:
        yield running
    finally:
        os.kill(pid, signal.SIGKILL)


@contextmanager
def _frozen(proving: Proving) -> Iterator[Running]:
    place = Frozen()
    try:
        (proving.folder / PLACE).write_text(place.path)
        running = proving.start("frozen_child")
        eventually(Path(place.asked).exists, "it did not ask the file system", BOUND)
        yield running
    finally:
        place.thaw()


@contextmanager
def _debugged(proving: Proving) -> Iterator[Running]:
    running = proving.start("debugged")
    tracer = trace(_pid(running, 1))
    try:
        yield running
    finally:
        tracer.communicate(timeout=BOUND)


HOLDERS = {"foreign_child": _foreign, "frozen_child": _frozen, "debugged": _debugged}


def _pid(running: Running, line: int) -> int:
    """Of the so-manieth process of its ledger, when it is there."""

    def lines() -> list[str]:
        return running.ledger.read_text().splitlines() if running.ledger.exists() else []

    eventually(lambda: len(lines()) >= line, "it did not start what it must", BOUND)
    return int(lines()[line - 1].split()[0])
