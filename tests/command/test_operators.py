"""Operators steer a worker that was started by command: its launcher counts a stop, its core and its isolates do the rest."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

from stem_iso.brokers.base import IsolateInfo
from stem_iso.testing import eventually
from stem_iso.worker.os_signals import ECHO
from tests.command.conftest import Command
from tests.isolate.calling import assert_dead, pid_in
from tests.worker.operators import BOUND, Operator

pytestmark = pytest.mark.slow
Start = Callable[..., Command]


def only_worker(operator: Operator) -> str:
    return eventually(operator.broker.workers, within=BOUND)[0].id


def busy(operator: Operator, worker_id: str, count: int = 1) -> list[IsolateInfo]:
    def look() -> list[IsolateInfo]:
        found = [each for each in operator.worker(worker_id).isolates if each.state == "busy"]
        return found if len(found) == count else []

    return eventually(look, within=BOUND)


def begun(ledger: Path, count: int) -> None:
    eventually(lambda: ledger.exists() and ledger.read_text().count("start") == count, within=BOUND)


def test_a_stop_ends_it_as_a_term_would_and_what_runs_finishes(command: Start, tmp_path: Path) -> None:
    worker = command().ready()
    operator = Operator(worker.app)
    handle = worker.enqueue("nap", args={"ledger": str(tmp_path / "ledger"), "seconds": 1.0})
    begun(tmp_path / "ledger", 1)
    assert operator.order(only_worker(operator), "stop").done
    worker.says("stopping: what runs has")
    assert worker.wait() == 0
    assert handle.status().state == "succeeded"
    worker.says("an operator's command: it is to stop")


def test_a_second_stop_is_at_once_as_a_second_term(command: Start, tmp_path: Path) -> None:
    worker = command().ready()
    operator = Operator(worker.app)
    handle = worker.enqueue("nap", args={"ledger": str(tmp_path / "ledger"), "seconds": 1000})
    begun(tmp_path / "ledger", 1)
    id = only_worker(operator)
    assert operator.order(id, "stop").done
    worker.says("stopping: what runs has")
    stopped = monotonic()
    eventually(lambda: monotonic() > stopped + 5 * ECHO, within=BOUND)  # a second one is no echo of the first
    operator.order(id, "stop")
    worker.says("stopping at once")
    assert worker.wait() == 0
    assert handle.status().state == "queued"


def test_it_gets_seats_while_it_runs(command: Start, tmp_path: Path) -> None:
    worker = command("-c", "1").ready()
    operator = Operator(worker.app)
    handles = [worker.enqueue("nap", args={"ledger": str(tmp_path / "ledger"), "seconds": 3.0}) for _ in range(3)]
    begun(tmp_path / "ledger", 1)
    id = only_worker(operator)
    assert operator.order(id, "concurrency", 3).done
    begun(tmp_path / "ledger", 3)
    worker.says("it has 3 seats now, and had 1")
    busy(operator, id, 3)
    for handle in handles:
        handle.result(timeout=BOUND)
    assert operator.order(id, "concurrency", 1).done
    eventually(lambda: len(operator.worker(id).isolates) <= 3, within=BOUND)  # a seat, a spare, and the shared host


def test_a_kill_takes_one_isolate_with_all_that_it_spawned_and_no_other(command: Start, tmp_path: Path) -> None:
    worker = command().ready()
    operator = Operator(worker.app)
    victim = worker.enqueue("child", args={"ledger": str(tmp_path / "victim")})
    other = worker.enqueue("spin", args={"ledger": str(tmp_path / "other")})
    below, spared = pid_in(tmp_path / "victim"), pid_in(tmp_path / "other")
    id = only_worker(operator)
    pid = next(each.pid for each in busy(operator, id, 2) if each.task_id == victim.id)
    assert operator.order(id, "kill", pid).done
    eventually(lambda: victim.status().state in ("failed", "retried"), within=BOUND)
    assert "killed by an operator" in victim.status().error.message
    assert_dead(pid, below)
    os.kill(spared, 0)
    assert other.status().state == "running"


@pytest.mark.parametrize("guard", ["process", "core"])
def test_launcher_and_core_are_no_isolates(command: Start, tmp_path: Path, guard: str) -> None:
    worker = command().ready()
    operator = Operator(worker.app)
    pid = worker.process.pid if guard == "process" else worker.core
    reply = operator.order(only_worker(operator), "kill", pid)
    assert not reply.done and f"no isolate {pid}" in reply.text
    worker.ready()


def test_the_stack_of_an_isolated_and_of_an_inline_task(command: Start, tmp_path: Path) -> None:
    worker = command().ready()
    operator = Operator(worker.app)
    worker.enqueue("c_loop", args={"ledger": str(tmp_path / "isolated")})
    inline = {"ledger": str(tmp_path / "inline"), "gate": str(tmp_path / "gate")}
    worker.enqueue("inline.wait", args=inline, soft_time_limit=600)
    pid_in(tmp_path / "isolated")
    begun(tmp_path / "inline", 1)
    id = only_worker(operator)
    [isolate] = busy(operator, id)
    eventually(lambda: "in c_loop" in operator.order(id, "stack", isolate.pid).text, within=BOUND)
    # The record that names it may be the one before it was ready.
    host = eventually(lambda: next((each.pid for each in operator.worker(id).isolates if each.state == "shared"), 0), within=BOUND)
    eventually(lambda: "in wait_for" in operator.order(id, "stack", host).text, within=BOUND)
    (tmp_path / "gate").touch()


def test_a_drained_one_still_stops_by_its_signal(command: Start, tmp_path: Path) -> None:
    worker = command().ready()
    operator = Operator(worker.app)
    id = only_worker(operator)
    assert operator.order(id, "drain").done
    handle = worker.enqueue("echo", args={"value": 1})
    eventually(lambda: operator.worker(id).draining, within=BOUND)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert handle.status().state == "queued"


def test_the_level_of_its_log_changes(command: Start, tmp_path: Path) -> None:
    worker = command("-l", "error").ready()
    operator = Operator(worker.app)
    id = only_worker(operator)
    first = worker.enqueue("echo", args={"value": 1})
    first.result(timeout=BOUND)
    assert operator.order(id, "log-level", "info").done
    second = worker.enqueue("echo", args={"value": 2})
    second.result(timeout=BOUND)
    worker.says(f"{second.id} completed")
    assert first.id not in worker.log.read_text()
