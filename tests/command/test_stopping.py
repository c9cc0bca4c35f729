"""Shutdown in its three ways, by command: one Ctrl-C is one signal, whatever runs is finished or given back, nothing is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from stem_iso import Stem, TaskFailed, TaskState
from tests.command.conftest import ROOT, Command
from tests.isolate.calling import assert_dead, eventually

pytestmark = pytest.mark.repeat
Start = Callable[..., Command]


def started(ledger: Path) -> int:
    eventually(lambda: ledger.exists() and ledger.read_text().endswith("\n"), "the handler did not start")
    return int(ledger.read_text().split()[1])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_finishes_what_runs(command: Start, tmp_path: Path, number: int) -> None:
    worker = command().ready()
    ledger = tmp_path / "ledger"
    handle = worker.enqueue("nap", args={"ledger": str(ledger), "seconds": 1.0})
    started(ledger)
    later = worker.enqueue("nap", args={"ledger": str(ledger), "seconds": 1.0}, delay=0.2)
    os.killpg(worker.process.pid, number)  # as a terminal does: to launcher and whoever is in its group
    assert worker.wait() == 0
    assert handle.result(timeout=1) == 0
    assert later.status().state is TaskState.QUEUED
    assert ledger.read_text().count("start") == 1


@pytest.mark.slow
def test_a_signal_to_every_process_is_one_signal(command: Start, tmp_path: Path) -> None:
    worker = command().ready()
    ledger = tmp_path / "ledger"
    handle = worker.enqueue("nap", args={"ledger": str(ledger), "seconds": 1.0})
    started(ledger)
    for pid in (*worker.below(), worker.process.pid):
        os.kill(pid, signal.SIGTERM)
    assert worker.wait() == 0
    assert handle.result(timeout=1) == 0


@pytest.mark.slow
def test_the_program_timeout_lets_running_tasks_finish(command: Start, tmp_path: Path) -> None:
    worker = command(through=("timeout", "--preserve-status", "600")).ready()
    ledger = tmp_path / "ledger"
    handle = worker.enqueue("nap", args={"ledger": str(ledger), "seconds": 1.0})
    started(ledger)
    worker.send(signal.SIGTERM)  # which `timeout` treats as its time being up: once to its child, once to its group
    assert worker.wait() == 0
    assert handle.result(timeout=1) == 0
    assert "stopping at once" not in worker.log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["second TERM", "QUIT", "time-out"])
def test_what_remains_is_killed_and_given_back_without_using_an_attempt(command: Start, tmp_path: Path, how: str) -> None:
    worker = command("--shutdown-timeout", "0.5" if how == "time-out" else "30").ready()
    ledger = tmp_path / "ledger"
    handle = worker.enqueue("nap", args={"ledger": str(ledger), "seconds": 1000})
    pid = started(ledger)
    worker.send(signal.SIGQUIT if how == "QUIT" else signal.SIGTERM)
    if how == "second TERM":
        worker.says("finish")
        worker.send(signal.SIGTERM)
    assert worker.wait(15) == 0
    assert_dead(pid)
    status = handle.status()
    assert (status.state, status.attempt, status.redeliveries) == (TaskState.QUEUED, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("days", [35, 36_525])
def test_limits_and_patience_of_many_years_are_kept(command: Start, tmp_path: Path, days: int) -> None:
    worker = command("--shutdown-timeout", str(days * 86_400), "--unregistered-grace", str(days * 86_400)).ready()
    ledger, far = tmp_path / "ledger", timedelta(days=days)
    args = {"ledger": str(ledger), "seconds": 1.0}
    handle = worker.enqueue("nap", args=args, hard_time_limit=far, heartbeat_timeout=far, visibility_timeout=far, result_ttl=far)
    later = worker.enqueue("inline", args={"value": 1}, delay=far)
    started(ledger)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert handle.result(timeout=far) == 0
    assert later.status().state is TaskState.QUEUED
    assert "died" not in worker.log.read_text()


@pytest.mark.slow
def test_an_at_most_once_task_that_had_started_is_not_given_back(command: Start, tmp_path: Path) -> None:
    worker = command().ready()
    ledger = tmp_path / "ledger"
    handle = worker.enqueue("once", args={"ledger": str(ledger)})
    started(ledger)
    worker.send(signal.SIGQUIT)
    assert worker.wait() == 0
    with pytest.raises(TaskFailed) as caught:
        handle.result(timeout=1)
    assert caught.value.status.reason == "worker-lost"


def test_a_burst_ends_by_itself(command: Start, tmp_path: Path) -> None:
    worker = command("--burst")
    assert worker.wait() == 0


@pytest.mark.slow
def test_secrets_do_not_reach_the_isolates(command: Start) -> None:
    worker = command("--secret-env", "STEM_ISO_TEST_SECRET", env={"STEM_ISO_TEST_SECRET": "hunter2"}).ready()
    found = worker.enqueue("where").result(timeout=20)
    assert found["secret"] == ""
    assert found["title"].startswith("where ")


@pytest.mark.slow
def test_a_worker_under_nohup_outlives_its_terminal(command: Start) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        worker = command()
    finally:
        signal.signal(signal.SIGHUP, before)
    worker.ready().send(signal.SIGHUP)
    assert worker.ready().process.poll() is None


def test_a_worker_without_standard_streams_works(tmp_path: Path) -> None:
    broker = f"sqlite:///{tmp_path}/jobs.db"
    program = [sys.executable, "-m", "stem_iso.worker", "-A", "tests.command.app:app", "--burst"]
    with contextlib.closing(Stem(broker)) as app:
        handle = app.enqueue("echo", {"value": 7})
        closed = ["sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh", *program]
        assert subprocess.run(closed, cwd=ROOT, env={**os.environ, "STEM_ISO_TEST_BROKER": broker}, timeout=60, check=False).returncode == 0
        assert handle.result(timeout=5) == 7
