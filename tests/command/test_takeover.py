"""Workers by command and embedded, killed whole: another one of the machine has their tasks again long before the leases run out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from stem_iso import TaskHandle
from stem_iso.testing.assertions import throughout
from tests.command.conftest import ROOT, Command
from tests.isolate.calling import assert_dead, eventually, pid_in
from tests.servers.fixtures import broker_of

pytestmark = pytest.mark.repeat
Start = Callable[..., Command]
LEASE = 600  # seconds: nothing here waits for that
SEEN = 3.0  # seconds, in which another worker looks twice, and confirms
NAMES = ("spin", "child")

PROGRAM = "from stem_iso import Worker; from tests.command.app import app; Worker(app, concurrency=2).run()"


# One worker is a quarter of a second of two cores: each incident is met on one broker, all rules on both (tests/worker/test_takeover.py).
SQLITE = pytest.mark.parametrize("broker", ["sqlite"], indirect=True)
REDIS = pytest.mark.parametrize("broker", ["redis"], indirect=True)


@pytest.fixture
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with broker_of(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def program(broker: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that embeds a worker."""
    environment = {**os.environ, "STEM_ISO_TEST_BROKER": broker}
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment)
    yield program
    with suppress(ProcessLookupError):
        program.kill()
    program.wait()


def under_way(worker: Command, folder: Path) -> tuple[dict[str, TaskHandle[Any]], dict[str, int]]:
    """Tasks that never end, and the pid that matters of each."""
    handles = {name: worker.enqueue(name, args={"ledger": str(folder / name)}, visibility_timeout=LEASE) for name in NAMES}
    pids = {name: pid_in(folder / name) for name in NAMES}
    for name in NAMES:
        (folder / name).unlink()
    return handles, pids


def kill_whole(worker: Command) -> list[int]:
    """Launcher and core in one instant; what was below them."""
    below, core = worker.below(), worker.core
    for pid in (worker.process.pid, core):
        os.kill(pid, signal.SIGKILL)
    worker.process.wait()
    return below


def are_under_way_again(handles: dict[str, TaskHandle[Any]], before: dict[str, int], folder: Path) -> None:
    again = {name: pid_in(folder / name) for name in NAMES}
    assert set(again.values()).isdisjoint(before.values())
    for handle in handles.values():
        status = handle.status()
        assert (status.state.value, status.attempt, status.redeliveries) == ("running", 0, 1)


@pytest.mark.parametrize(
    ("broker", "when"), [("sqlite", "before"), pytest.param("redis", "after", marks=pytest.mark.slow)], indirect=["broker"]
)
def test_a_worker_that_was_killed_whole_is_taken_over(command: Start, broker: str, tmp_path: Path, when: str) -> None:
    doomed = command("-c", "2", broker=broker).ready()
    handles, pids = under_way(doomed, tmp_path)
    other = command("-c", "2", broker=broker) if when == "before" else None
    if other is not None:
        eventually(lambda: other.core in {each.pid for each in workers(other)}, "the other one is at work")
    below = kill_whole(doomed)
    other = other or command("-c", "2", broker=broker)
    are_under_way_again(handles, pids, tmp_path)
    assert_dead(*pids.values(), *below)  # by then, not just soon
    other.says("none of its processes is left on this machine; 2 of its tasks are redelivered")


@SQLITE
def test_a_burst_runs_what_a_worker_left_that_was_killed_a_moment_ago(command: Start, broker: str, tmp_path: Path) -> None:
    doomed, begun = command("-c", "1", broker=broker), tmp_path / "begun"
    line = f"[ -e {begun} ] || {{ touch {begun}; sleep 1000; }}"
    handle = doomed.enqueue("shell", args={"line": line}, visibility_timeout=LEASE)
    eventually(begun.exists, "it has begun")
    kill_whole(doomed)
    assert command("--burst", broker=broker).wait() == 0
    assert handle.status().result == 0


def workers(worker: Command) -> list[Any]:
    return worker.app.open_broker().workers()


@pytest.mark.slow
@SQLITE
def test_a_program_that_was_killed_with_its_keeper_is_taken_over(
    command: Start, program: subprocess.Popen[bytes], broker: str, tmp_path: Path
) -> None:
    other = command("-c", "1", "-Q", "nothing", broker=broker)  # it takes over what it does not serve, too
    handles, pids = under_way(other, tmp_path)
    eventually(lambda: other.core in {each.pid for each in workers(other)}, "the other one is at work")
    eventually(lambda: len(processes(other, program.pid)) == 2, "its keeper is registered")
    for pid, _ in processes(other, program.pid):
        os.kill(pid, signal.SIGKILL)
    waits = {("queued", 1)}
    eventually(lambda: {(each.status().state.value, each.status().redeliveries) for each in handles.values()} == waits, "they wait again")
    assert_dead(*pids.values())


def processes(worker: Command, pid: int) -> list[tuple[int, int]]:
    return next((each.processes for each in workers(worker) if each.pid == pid), [])


@pytest.mark.slow
@REDIS
def test_a_worker_that_is_stopped_or_whose_core_died_alone_is_not(command: Start, broker: str, tmp_path: Path) -> None:
    halted = command("-c", "2", broker=broker).ready()
    handles, pids = under_way(halted, tmp_path)
    other = command("-c", "2", broker=broker)
    eventually(lambda: other.core in {each.pid for each in workers(other)}, "the other one is at work")

    def untouched() -> bool:
        return all((each.status().state.value, each.status().redeliveries) == ("running", 0) for each in handles.values())

    core = halted.core
    for pid in (halted.process.pid, core):
        os.kill(pid, signal.SIGSTOP)
    try:
        throughout(untouched, SEEN)
    finally:
        for pid in (halted.process.pid, core):
            os.kill(pid, signal.SIGCONT)
    os.kill(core, signal.SIGKILL)
    are_under_way_again(handles, pids, tmp_path)  # by the launcher's next core
    assert "none of its processes is left" not in other.log.read_text()
    halted.says("takes its leases")


@pytest.mark.slow
@SQLITE
@pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace needs root")
def test_a_worker_in_another_pid_namespace_is_not_judged(command: Start, broker: str, tmp_path: Path) -> None:
    inside = command("-c", "2", broker=broker, through=("unshare", "-p", "-f", "--mount-proc", "--kill-child"))
    handle = inside.enqueue("spin", args={"ledger": str(tmp_path / "spin")}, visibility_timeout=LEASE)
    pid_in(tmp_path / "spin")
    other = command("-c", "2", broker=broker)
    eventually(lambda: other.core in {each.pid for each in workers(other)}, "the other one is at work")
    throughout(lambda: (handle.status().state.value, handle.status().redeliveries) == ("running", 0), SEEN)
    assert "none of its processes is left" not in other.log.read_text()
