"""The observer's eyes: what a ledger says, and who of it still lives."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.reference import kernel
from bench.reference.observer import Ledger, Watch, kill, left, parse, starts, until

LEDGER = "start 7 1.500000\ndue 1.600000\nchild 8 1.700000\nchild 9 1.800000\n"


def test_a_ledger_is_read_line_by_line() -> None:
    assert parse(LEDGER) == Ledger(7, 1.5, 1.6, children={8: 1.7, 9: 1.8})


@given(st.integers(0, len(LEDGER)))
def test_a_line_that_is_half_written_does_not_count(length: int) -> None:
    whole = LEDGER[:length].count("\n")
    assert parse(LEDGER[:length]) == parse("".join(LEDGER.splitlines(keepends=True)[:whole]))


def test_a_worker_that_outlives_its_task_is_not_left_behind(tmp_path: Path) -> None:
    path, now = tmp_path / "ledger", time.monotonic()
    path.write_text(f"start {os.getpid()} {now:.6f}\n")
    watch = Watch(path, 30.0)
    assert watch.started() is not None
    with path.open("a") as file:
        file.write(f"end {os.getpid()} {now + 0.5:.6f}\n")
    assert watch.wait() == pytest.approx(now + 0.5, abs=1e-5)
    assert left(watch.ledger).alive == ()
    assert parse("start 7 1.0\nend 8 2.0\n").end is None  # a fork of the handler's is not the handler


def test_a_redelivery_is_a_second_start() -> None:
    assert starts(LEDGER + LEDGER) == 2
    assert parse(LEDGER + "start 10 3.0\n").pid == 7


def test_a_death_is_seen_and_a_zombie_of_ours_is_nobodys_fault(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    path = tmp_path / "ledger"
    path.write_text(f"start {process.pid} {time.monotonic():.6f}\n")
    watch = Watch(path, 30.0)
    assert watch.started() is not None
    assert left(watch.ledger).alive == (process.pid,)
    before = time.monotonic()
    kill([process.pid])
    dead = watch.wait()
    assert dead is not None and dead >= before
    assert left(watch.ledger) == left(Ledger())
    process.wait()


def test_a_pid_that_is_anothers_now_is_not_alive() -> None:
    assert left(Ledger(os.getpid(), 0.001)).alive == ()
    assert left(Ledger(os.getpid(), time.monotonic())).alive == (os.getpid(),)


def test_a_zombie_that_its_parent_does_not_reap_is_counted() -> None:
    code = "import os, sys, time\npid = os.fork()\nif not pid: os._exit(0)\nprint(pid, flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        noted = Ledger(children={pid: time.monotonic()})
        assert until(lambda: left(noted).zombies == (pid,), 30.0)
        process.communicate("")


def test_a_line_of_the_kernel_is_read() -> None:
    line = "    python-4711    [001] d..2.  123.456789: signal_generate: sig=9 errno=0 code=0 comm=python pid=4712 grp=1 res=0"
    assert kernel.parse(line) == kernel.Signal(123.456789, 4711, 9, 4712)
    assert kernel.parse("# tracer: nop") is None


@pytest.mark.parametrize("word", ["start", "start 7", "child 7", "nonsense 1 2 3"])
def test_what_is_no_line_of_a_ledger_is_ignored(word: str) -> None:
    assert parse(word + "\n") == Ledger()
