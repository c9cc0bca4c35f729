"""Limits over several worker processes, one of which is killed while it holds what others wait for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stem_iso.testing import eventually
from tests.command.conftest import Command

Start = Callable[..., Command]
APPLICATION = "tests.command.limited:app"


def lines(ledger: Path) -> list[tuple[str, str, float, int]]:
    """What happened, to which task, when, and below which launcher."""
    if not ledger.exists():
        return []
    return sorted(((what, id, float(at), int(pid)) for what, id, at, pid in map(str.split, ledger.read_text().splitlines())), key=at_of)


def at_of(line: tuple[str, str, float, int]) -> float:
    return line[2]


def running(ledger: Path) -> dict[str, int]:
    held = {}
    for what, id, _, pid in lines(ledger):
        if what == "start":
            held[id] = pid
        else:
            del held[id]
    return held


def workers(command: Start, count: int) -> list[Command]:
    started = [command(application=APPLICATION) for _ in range(count)]
    started[0].ready()
    eventually(lambda: len(started[0].app.open_broker().workers()) == count, 30)
    return started


@pytest.mark.slow
def test_a_worker_that_is_killed_takes_no_place_with_it_and_leaves_none_to_two(command: Start, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    crew = {worker.process.pid: worker for worker in workers(command, 3)}
    producer, args = next(iter(crew.values())), {"ledger": str(ledger), "seconds": 0.15}
    handles = [producer.enqueue("three", args=args, visibility_timeout=1) for _ in range(30)]
    eventually(lambda: len(lines(ledger)) > 12, 30)
    victim = crew[eventually(lambda: list(running(ledger).values()), 30)[-1]]
    for pid in (victim.core, victim.process.pid):
        os.kill(pid, signal.SIGKILL)
    victim.process.wait()
    killed_at = time.monotonic()
    for handle in handles:
        assert handle.result(timeout=30) == 0  # no attempt was used up
    held: dict[str, int] = {}
    most = 0
    for what, id, at, pid in lines(ledger):
        if at > killed_at:
            held = {one: launcher for one, launcher in held.items() if launcher != victim.process.pid}
        if what == "start":
            held[id] = pid
        else:
            held.pop(id, None)
        most = max(most, len(held))
    assert 1 < most <= 3
    ended = [id for what, id, _, _ in lines(ledger) if what == "end"]
    assert set(ended) == {handle.id for handle in handles}


@pytest.mark.slow
def test_a_rate_holds_over_all_workers_and_loses_no_time(command: Start, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    crew = workers(command, 2)
    handles = [crew[0].enqueue("paced", args={"ledger": str(ledger)}) for _ in range(100)]
    for handle in handles:
        handle.result(timeout=30)
    assert {pid for *_, pid in lines(ledger)} == {worker.process.pid for worker in crew}
    began = sorted(handle.status().started_at.timestamp() for handle in handles)
    assert min(later - earlier for earlier, later in zip(began, began[20:], strict=False)) > 0.5 - 0.005  # two clocks, slewed apart
    assert 4 * 0.5 - 0.02 < began[-1] - began[0] < 4 * 0.5 + 10
