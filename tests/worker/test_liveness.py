"""Whether a process lives, for whoever looks from outside: by pid and start time, and only where both look from the same place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from stem_iso.worker.liveness import has_exited, machine, process

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="namespaces and other users need root")
PRINT_MACHINE = "from stem_iso.worker.liveness import machine; print(machine())"

# As somebody who may not signal process 1, and for whom /proc hides it.
HIDDEN = """
import ctypes, os, subprocess
from stem_iso.worker.liveness import has_exited, process
first = process(1)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0  # CLONE_NEWNS
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["mount", "-t", "proc", "-o", "hidepid=2", "proc", "/proc"], check=True)
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
print(os.path.exists("/proc/1/stat"), has_exited(*first))
"""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    sleeper = subprocess.Popen(["sleep", "1000"])
    yield sleeper
    sleeper.kill()
    sleeper.wait()


def output_of(*command: str) -> str:
    done = subprocess.run([*command], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0 and "ermitted" in done.stderr:
        pytest.skip(f"not allowed here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def started(pid: int) -> int:
    found = process(pid)
    assert found is not None
    return found[1]


def test_a_process_lives_until_its_end_and_a_zombie_has_ended(sleeper: subprocess.Popen[bytes]) -> None:
    start = started(sleeper.pid)
    assert not has_exited(sleeper.pid, start)
    sleeper.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED | os.WNOWAIT)
    assert not has_exited(sleeper.pid, start), "it is stopped, and may go on at any time"
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert has_exited(sleeper.pid, start), "nobody has reaped it, and it does nothing any more"
    sleeper.wait()
    assert has_exited(sleeper.pid, start)


def test_a_pid_that_was_given_to_another_process_is_not_that_process(sleeper: subprocess.Popen[bytes]) -> None:
    assert has_exited(sleeper.pid, started(sleeper.pid) - 1)


def test_what_is_no_pid_is_not_judged() -> None:
    assert not has_exited(0, 1) and not has_exited(-1, 1)
    assert has_exited(1 << 40, 1)


def test_all_processes_of_one_place_name_it_alike() -> None:
    assert machine() and output_of(sys.executable, "-c", PRINT_MACHINE) == machine()


@needs_root
def test_another_hostname_is_the_same_place() -> None:
    assert output_of("unshare", "-u", "sh", "-c", f"hostname elsewhere && exec {sys.executable} -c '{PRINT_MACHINE}'") == machine()


@needs_root
@pytest.mark.parametrize("how", [("-p", "-f", "--mount-proc"), ("-T", "--boottime", "1000")], ids=["pid namespace", "time namespace"])
def test_where_pids_or_start_times_mean_something_else_is_another_place(how: tuple[str, ...]) -> None:
    there = output_of("unshare", *how, sys.executable, "-c", PRINT_MACHINE)
    assert there and there != machine()


@needs_root
def test_who_sees_the_pids_of_another_namespace_judges_nobody() -> None:
    assert output_of("unshare", "-p", "-f", sys.executable, "-c", PRINT_MACHINE) == ""  # its /proc is ours


@needs_root
def test_a_process_that_is_hidden_or_another_users_lives() -> None:
    assert output_of(sys.executable, "-c", HIDDEN) == "False False"
