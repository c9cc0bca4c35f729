"""Memory limits: the isolate and its descendants together, shared pages once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_iso.isolate.engine import memory
from stem_iso.isolate.engine.memory import LONGEST, SHARE, SHORTEST, pause
from stem_iso.outcome import Crashed, MemoryExceeded
from tests.isolate.calling import Calls, eventually

MIB = 1 << 20
LIMIT = 200 * MIB


@pytest.mark.repeat
@pytest.mark.parametrize(("handler", "args"), [("devour", (1 << 30,)), ("child_devours", (1 << 30,)), ("slowly", (1 << 30, 2.0))])
def test_what_holds_too_much_is_killed_and_reported_with_both_figures(calls: Calls, handler: str, args: tuple[object, ...]) -> None:
    neighbour = calls.start("sleep", 0.5)
    outcome = calls.run(handler, *args, memory=LIMIT)
    assert isinstance(outcome, MemoryExceeded) and outcome.limit == LIMIT < outcome.rss < 1 << 30
    assert calls.unpickle(neighbour.outcome()) == 0.5
    assert calls.value("echo", "next") == "next"


def test_what_stays_below_its_limit_is_left_alone(calls: Calls) -> None:
    assert calls.value("slowly", 100 * MIB, 0.3, memory=LIMIT) == "had 100 MiB"


@pytest.mark.repeat
def test_pages_that_many_processes_share_count_once(calls: Calls) -> None:
    assert calls.value("pages_are_shared", 100 * MIB, 4, memory=LIMIT) == 500 * MIB


def test_a_limit_is_one_calls_and_not_the_isolates(calls: Calls) -> None:
    assert calls.value("echo", 1, memory=LIMIT) == 1
    assert calls.value("devour", 300 * MIB) == "had 300 MiB"


def test_a_reply_just_before_the_kill_counts(calls: Calls) -> None:
    for _ in range(30):
        outcome = calls.run("devour", 16 * MIB, memory=40 * MIB)
        assert isinstance(outcome, MemoryExceeded) or calls.unpickle(outcome) == "had 16 MiB"


@given(st.integers(-(1 << 40), 1 << 40), st.floats(0, 10))
def test_the_pause_has_bounds_and_a_measure_its_share_of_the_time(room: int, cost: float) -> None:
    seconds = pause(room, cost)
    assert seconds >= SHORTEST
    assert seconds >= SHARE * cost
    assert seconds <= max(LONGEST, SHARE * cost)


def test_a_process_is_measured_with_what_descends_from_it() -> None:
    code = (
        "import os, sys, time\nkept = b'x' * (50 << 20)\nif os.fork() == 0: mine = b'y' * (30 << 20)\nprint(1, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as root:
        assert root.stdout is not None
        assert root.stdout.readline() + root.stdout.readline() == b"1\n1\n"
        meter = memory.Meter(memory.MemoryReader(root.pid), 1 << 40)
        assert not meter.is_over()
        apart = sum(memory.resident(pid)[0] for pid in memory.family(root.pid))
        assert 80 * MIB < meter.used < 120 * MIB < 130 * MIB < apart < 190 * MIB
        for pid in reversed(memory.family(root.pid)):
            os.kill(pid, 9)
    eventually(lambda: memory.resident(root.pid) == (0, 0), "a dead process has memory")


# -- the kernel's own ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("membership", "counted_in"),
    [
        ("0::/system.slice/worker.service\n", "system.slice/worker.service/memory.events"),
        ("0::/not/in/this/container\n", "memory.events"),
        ("4:memory:/docker/abc\n0::/\n", "memory/docker/abc/memory.oom_control"),
    ],
)
def test_the_kernels_kills_are_found_where_they_are_counted(tmp_path: Path, membership: str, counted_in: str) -> None:
    counter = tmp_path / counted_in
    counter.parent.mkdir(parents=True, exist_ok=True)
    counter.write_text("low 0\noom 2\noom_kill 7\n")
    assert next(path for path in memory.oom_counters(membership, tmp_path) if memory.oom_kills(path) is not None) == counter


def test_a_kill_of_the_kernel_counts_once(tmp_path: Path) -> None:
    counter = tmp_path / "memory.events"
    counter.write_text("oom_kill 7\n")
    kills = memory.OomKills(counter)
    assert not kills.grew()
    counter.write_text("oom_kill 8\n")
    assert kills.grew()
    assert not kills.grew()


def test_this_machine_counts_the_kernels_kills() -> None:
    assert memory.oom_kills(memory.VMSTAT) is not None


def test_a_kill_from_outside_is_not_taken_for_the_kernels(calls: Calls) -> None:
    outcome = calls.run("kill_itself")
    assert isinstance(outcome, Crashed) and outcome.signal == "SIGKILL" and not outcome.out_of_memory


def test_an_isolate_goes_before_its_worker_when_the_kernel_has_no_memory(calls: Calls) -> None:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(calls.value("read_file", "/proc/self/oom_score_adj")) > own
