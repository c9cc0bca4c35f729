"""The core stopped, the core killed, the keeper killed, while handlers with children and daemons run: all of them die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.isolate.calling import assert_dead, descendants, eventually, pid_in

pytestmark = pytest.mark.repeat
NAMES = ("spin", "child", "daemon", "c_loop")
ALONE = ("spin", "c_loop")  # they write their own pids
SECOND = 1.0


class Program:
    def __init__(self, folder: Path, hard: float, meanwhile: str = "wait") -> None:
        command = [sys.executable, "-m", "tests.isolate.program", str(folder), str(hard), meanwhile]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.pids = self.read()
        self.below = [*descendants(self.pids["core"]), *(pid_in(folder / name) for name in NAMES)]

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the program ended"
        report: dict[str, Any] = json.loads(line)
        return report

    def workers(self) -> list[int]:
        """All below it but the keeper."""
        return [pid for pid in self.below if pid != self.pids["keeper"]]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for name in NAMES:
        if (tmp_path / name).exists():
            assert_dead(pid_in(tmp_path / name), within=SECOND)


@pytest.mark.slow
def test_a_stopped_core_does_not_stop_the_limit(folder: Path) -> None:
    program = Program(folder, hard=2.0)
    victims = [pid_in(folder / name) for name in NAMES]
    os.kill(program.pids["core"], signal.SIGSTOP)
    try:
        assert_dead(*victims, within=10)
        alone = [pid_in(folder / name) for name in ALONE]
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in alone), "not reaped")  # it reports, then reaps
    finally:
        continued = monotonic()
        os.kill(program.pids["core"], signal.SIGCONT)
    for name in NAMES:
        report = program.read()
        assert (report["name"], report["timed_out"], report["outcomes"]) == (name, True, 1), report
        assert report["levels"] == ["hard"]
        assert name not in ALONE or report["dead"] <= continued, "the death is reported as of when it was, not as of when the core saw it"
    assert program.read() == {"next": "served"}
    assert program.process.wait(20) == 0


@pytest.mark.slow
@pytest.mark.parametrize("meanwhile", ["spin", "keep the GIL"])
def test_a_program_that_keeps_the_gil_does_not_keep_a_limit_from_being_enforced(folder: Path, meanwhile: str) -> None:
    program = Program(folder, hard=2.0, meanwhile=meanwhile)
    for name in NAMES:
        report = program.read()
        assert (report["name"], report["timed_out"], report["outcomes"]) == (name, True, 1), report
        assert report["dead"] - report["limit_at"] < SECOND, "it was left to live until the program let go"
    assert program.read() == {"next": "served"}
    assert program.process.wait(20) == 0


@pytest.mark.slow
def test_a_killed_core_takes_everything_with_it(folder: Path) -> None:
    program = Program(folder, hard=0)
    program.process.kill()
    program.process.wait()
    assert_dead(*program.below, within=SECOND)


@pytest.mark.slow
def test_a_killed_keeper_is_replaced_and_everything_it_kept_dies(folder: Path) -> None:
    program = Program(folder, hard=0)
    os.kill(program.pids["keeper"], signal.SIGKILL)
    assert_dead(*program.below, within=SECOND)
    for _ in NAMES:
        report = program.read()
        assert "keeper lost" in report["outcome"]
        assert report["outcomes"] == 1
    assert program.read() == {"next": "served"}
    assert program.process.wait(20) == 0


@pytest.mark.slow
def test_with_core_and_keeper_killed_at_once_the_kernel_kills_the_isolates(folder: Path) -> None:
    program = Program(folder, hard=0)
    os.kill(program.pids["core"], signal.SIGSTOP)
    os.kill(program.pids["keeper"], signal.SIGKILL)
    os.kill(program.pids["core"], signal.SIGKILL)
    program.process.wait()
    daemon = pid_in(folder / "daemon")
    try:
        assert_dead(*(pid for pid in program.below if pid != daemon), within=SECOND)
    finally:
        os.kill(daemon, signal.SIGKILL)  # a daemon in a session of its own survives this one case: SECURITY.md says so


@pytest.mark.slow
def test_a_stopped_keeper_is_woken_to_report_an_exit(folder: Path) -> None:
    program = Program(folder, hard=2.0)
    os.kill(program.pids["keeper"], signal.SIGSTOP)
    for name in NAMES:
        report = program.read()
        assert (report["name"], report["timed_out"]) == (name, True), report
    assert program.read() == {"next": "served"}
    assert program.process.wait(20) == 0
