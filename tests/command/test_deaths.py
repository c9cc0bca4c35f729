"""A worker by command whose core is stopped or killed, or whose launcher is killed: nothing is left behind, nothing is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from stem_iso import TaskFailed, TaskState
from tests.command.conftest import Command
from tests.isolate.calling import assert_dead, eventually, pid_in
from tests.servers.fixtures import broker_of

pytestmark = pytest.mark.repeat
Start = Callable[..., Command]
NAMES = ("spin", "child", "daemon", "c_loop")


def run_all(worker: Command, folder: Path, **options: float) -> dict[str, int]:
    """One of each stuck handler; the pid that matters of each."""
    worker.handles = {name: worker.enqueue(name, args={"ledger": str(folder / name)}, **options) for name in NAMES}  # type: ignore[attr-defined]
    return {name: pid_in(folder / name) for name in NAMES}


@pytest.mark.slow
def test_with_the_core_stopped_limits_are_kept_and_reported_when_it_goes_on(command: Start, tmp_path: Path) -> None:
    worker = command().ready()
    victims = run_all(worker, tmp_path, hard_time_limit=1.5)
    os.kill(worker.core, signal.SIGSTOP)
    try:
        assert_dead(*victims.values(), within=10)
    finally:
        os.kill(worker.core, signal.SIGCONT)
    for handle in worker.handles.values():  # type: ignore[attr-defined]
        with pytest.raises(TaskFailed) as caught:
            handle.result(timeout=20)
        assert caught.value.error is not None
        assert caught.value.error.type == "stem_iso.errors.TimeoutException"
    worker.ready()


@pytest.mark.slow
def test_a_killed_core_is_replaced_and_the_new_one_takes_its_leases_at_once(command: Start, tmp_path: Path) -> None:
    worker = command().ready()
    victims = run_all(worker, tmp_path)
    old = worker.below()
    for name in NAMES:
        (tmp_path / name).unlink()
    os.kill(worker.core, signal.SIGKILL)
    assert_dead(*victims.values(), *old, within=1.0)
    again = {name: pid_in(tmp_path / name) for name in NAMES}  # long before the lease of 30 s runs out
    assert set(again.values()).isdisjoint(victims.values())
    for handle in worker.handles.values():  # type: ignore[attr-defined]
        status = handle.status()
        assert (status.state, status.attempt, status.redeliveries) == (TaskState.RUNNING, 0, 1)
    worker.send(signal.SIGQUIT)
    assert worker.wait() == 0
    assert_dead(*again.values())


def test_a_killed_launcher_takes_everything_with_it(command: Start, tmp_path: Path) -> None:
    worker = command().ready()
    victims = run_all(worker, tmp_path)
    old = worker.below()
    worker.process.kill()
    worker.process.wait()
    assert_dead(*victims.values(), *old, within=1.0)


@pytest.mark.slow
def test_a_core_that_dies_five_times_in_a_minute_ends_the_launcher(command: Start) -> None:
    worker = command().ready()
    for _ in range(5):
        eventually(lambda: worker.core, "no core")
        before = worker.core
        os.kill(before, signal.SIGKILL)
        eventually(lambda before=before: worker.core != before or worker.process.poll() is not None, "the core is still there")
        if worker.process.poll() is not None:
            break
    assert worker.wait(60) == 1
    worker.says("giving up")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_the_events_of_a_task_go_on_with_the_successor_of_a_killed_core(command: Start, tmp_path: Path, kind: str) -> None:
    with broker_of(kind, tmp_path) as broker:
        worker = command(broker=broker).ready()
        lost = worker.enqueue("once", args={"ledger": str(tmp_path / "once")})
        again = worker.enqueue("inline.wait", args={"ledger": str(tmp_path / "again"), "gate": str(tmp_path / "gate")})
        eventually((tmp_path / "once").exists, "it does not begin")
        eventually((tmp_path / "again").exists, "it does not begin")
        events = {handle: handle.events(timeout=60) for handle in (lost, again)}
        (tmp_path / "again").unlink()
        os.kill(worker.core, signal.SIGKILL)
        eventually((tmp_path / "again").exists, "it does not begin")
        (tmp_path / "gate").touch()
        assert [event.type.value for event in events[again] if event.type != "started"] == ["completed"]
        assert [event.type.value for event in events[lost]] in (["failed"], [])  # the new core may not know yet that somebody listens
        assert (lost.status().state, lost.status().reason) == (TaskState.FAILED, "worker-lost")
        worker.close()
