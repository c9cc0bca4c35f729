"""Handlers that turn on their own worker: what dies with it is delivered again, counted, and ends among the dead letters."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from stem_iso import TaskFailed, TaskState
from stem_iso.isolate.keeper import process_tree
from tests.command.conftest import Command
from tests.hostile.expected import TIMEOUT
from tests.hostile.proving import APPLICATION, BOUND
from tests.hostile.survivors import survivors
from tests.isolate.calling import assert_dead, eventually

QUERY = "?max_redeliveries=1&default_visibility_timeout=1&claim_interval=0.1"
WITHIN = 1.0  # seconds: what a dead worker leaves is gone by then
Start = Callable[[], Command]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Workers one after another on one broker, where a task is delivered twice at most."""
    made: list[Command] = []

    def start_one() -> Command:
        broker = f"sqlite:///{tmp_path}/jobs.db{QUERY}"
        made.append(Command(tmp_path, "--broker", broker, broker=broker, application=APPLICATION))
        return made[-1]

    yield start_one
    for each in made:
        each.close()


def served(worker: Command) -> None:
    assert worker.enqueue("innocent.echo", args={"value": 5}).result(timeout=BOUND) == 5


@pytest.mark.slow
def test_a_killed_keeper_takes_its_worker_with_it_and_the_task_is_dead_lettered_in_the_end(start: Start, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    first = start()
    served(first)
    handle = first.enqueue("hostile.kill_keeper", args={"ledger": str(ledger), "marker": "k"})
    below = first.below()
    assert first.wait() == -signal.SIGKILL
    assert_dead(*below, within=WITHIN)
    assert (handle.status().state, handle.status().redeliveries) == (TaskState.RUNNING, 0)
    second = start()
    assert second.wait() == -signal.SIGKILL
    third = start()
    with pytest.raises(TaskFailed):
        handle.result(timeout=BOUND)
    status = handle.status()
    assert (status.reason, status.attempt) == ("redelivery-limit", 0)
    assert len(set(ledger.read_text().splitlines())) == 2, "it ran as often as it was delivered"
    assert survivors(ledger, "k", handle.id) == []
    served(third)


@pytest.mark.slow
def test_a_killed_core_is_replaced_and_the_task_is_dead_lettered_in_the_end(start: Start, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    worker = start()
    served(worker)
    handle = worker.enqueue("hostile.kill_core", args={"ledger": str(ledger), "marker": "c"})
    with pytest.raises(TaskFailed):
        handle.result(timeout=BOUND)
    status = handle.status()
    assert (status.reason, status.attempt) == ("redelivery-limit", 0)
    assert len(set(ledger.read_text().splitlines())) == 2, "it ran as often as it was delivered"
    assert survivors(ledger, "c", handle.id) == []
    served(worker)
    assert worker.process.poll() is None


@pytest.mark.slow
def test_a_stopped_keeper_is_woken_by_the_core_and_the_limit_is_reported(start: Start, tmp_path: Path) -> None:
    worker = start()
    served(worker)
    handle = worker.enqueue("hostile.stop_keeper", args={"ledger": str(tmp_path / "ledger")})
    with pytest.raises(TaskFailed, match="time limit"):
        handle.result(timeout=BOUND)
    assert handle.status().redeliveries == 0
    served(worker)
    assert worker.process.poll() is None


@pytest.mark.slow
def test_a_stopped_core_keeps_the_limit_and_reports_it_when_it_is_continued(start: Start, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    worker = start()
    served(worker)
    core = worker.core
    handle = worker.enqueue("hostile.stop_core", args={"ledger": str(ledger), "marker": "s"})
    eventually(lambda: ledger.exists() and ledger.read_text().endswith("\n"), "it did not start")
    victim = int(ledger.read_text().split()[0])
    try:
        assert_dead(victim, within=BOUND)  # with nobody but the keeper to kill it
        assert Path(f"/proc/{core}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    finally:
        with suppress(ProcessLookupError):
            os.kill(core, signal.SIGCONT)
    with pytest.raises(TaskFailed) as caught:
        handle.result(timeout=BOUND)
    assert caught.value.error is not None and caught.value.error.type == TIMEOUT
    assert survivors(ledger, "s", handle.id) == []
    served(worker)
    assert worker.core == core and not process_tree.is_dead(core)
