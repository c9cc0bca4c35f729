"""Processes that will not die, that nobody may kill, that a debugger holds, or that get away: each costs its own call, and no other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from entrypoints.linux import CLONE
from stem_iso.isolate.keeper import process_tree
from stem_iso.outcome import Crashed, Outcome, Stopped, StopReason, Succeeded, TimedOut
from tests.isolate.calling import BOUND, Calls, assert_dead, eventually, pid_in
from tests.isolate.capabilities import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_KILL, CAP_SYS_PTRACE, drop
from tests.isolate.debugger import trace
from tests.isolate.frozen import Frozen
from tests.isolate.punctual import SECOND, assert_others_are_punctual, keeper, stuck, warm, zombies

pytestmark = pytest.mark.repeat
Make = Callable[..., Calls]


@pytest.fixture
def frozen() -> Iterator[Frozen]:
    place = Frozen()
    yield place
    place.thaw()


@pytest.fixture
def calls(engines: Make) -> Iterator[Calls]:
    """An engine replaces a keeper that blocks, and all ends well: what blocked shows itself in the keeper's pid alone."""
    calls = engines(size=3)
    first = keeper(calls)
    yield calls
    assert keeper(calls) == first, "the keeper blocked or died, and was replaced"


# -- zombies -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("then", "kind"), [("stay", TimedOut), ("crash", Crashed), ("return", Succeeded)])
def test_no_zombie_of_a_task_is_left_behind_its_end(calls: Calls, tmp_path: Path, then: str, kind: type[Outcome]) -> None:
    hard = 2.0 if then == "stay" else None
    for each in [calls.start("ten_children", str(tmp_path / f"{number}"), then, hard=hard) for number in range(3)]:
        assert isinstance(each.outcome(), kind)
    eventually(lambda: not zombies(calls), "zombies are left", SECOND)


@pytest.mark.slow
def test_a_task_that_daemonizes_for_ever_leaves_no_zombies_while_it_runs(calls: Calls, tmp_path: Path) -> None:
    """Each daemon ends by itself, where nobody but the keeper can reap it."""
    busy = calls.start("wait_for", str(tmp_path / "go"))
    assert calls.value("fork_past_the_isolate", str(tmp_path / "pid")) == "done"
    assert_dead(pid_in(tmp_path / "pid"), within=SECOND)
    eventually(lambda: not zombies(calls), "zombies are left", SECOND)
    assert busy.outcomes == []
    (tmp_path / "go").touch()
    assert isinstance(busy.outcome(), Succeeded)


# -- uninterruptible sleep ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("then", "kind"), [("stay", Stopped), ("crash", Crashed), ("return", Succeeded)])
def test_an_uninterruptible_child_holds_up_its_own_call_alone(
    calls: Calls, frozen: Frozen, tmp_path: Path, then: str, kind: type[Outcome]
) -> None:
    warm(calls, 2)
    held = calls.start("child_in_a_frozen_file", frozen.path, frozen.asked, str(tmp_path / "pid"), then)
    child = pid_in(tmp_path / "pid")
    if then == "stay":
        calls.engine.stop(held.call, StopReason.REVOKED)  # type: ignore[attr-defined]
    eventually(lambda: stuck(calls), "nobody named it")
    (notice,) = stuck(calls)
    assert (notice.pid, notice.title) == (child, f"stat {frozen.path}")
    assert "uninterruptible" in (notice.reason or "")
    assert_others_are_punctual(calls)
    assert not process_tree.is_dead(child) and held.outcomes == [], "its end was reported while its child lives"
    frozen.thaw()
    assert isinstance(held.outcome(), kind)
    assert process_tree.is_dead(child)
    eventually(lambda: not zombies(calls), "zombies are left", SECOND)
    assert len(stuck(calls)) == len(held.outcomes) == 1


@pytest.mark.slow
def test_an_uninterruptible_isolate_is_set_aside_and_its_call_ends_when_it_has_exited(
    engines: Make, frozen: Frozen, tmp_path: Path
) -> None:
    calls = engines(size=1, spares=0)
    held = calls.start("look_at_a_frozen_file", frozen.path, str(tmp_path / "pid"), hard=2.0)
    isolate = pid_in(tmp_path / "pid")
    began = held.sent_at + 2.0
    eventually(lambda: stuck(calls), "nobody named it")
    assert monotonic() - began < SECOND
    assert [notice.pid for notice in stuck(calls)] == [isolate]
    assert calls.value("echo", "served") == "served", "its seat was not set aside"
    assert held.outcomes == []
    frozen.thaw()
    assert isinstance(held.outcome(), TimedOut)
    assert_dead(isolate)


def test_an_engine_closes_though_something_does_not_die(engines: Make, frozen: Frozen, tmp_path: Path) -> None:
    calls = engines()
    calls.start("child_in_a_frozen_file", frozen.path, frozen.asked, str(tmp_path / "pid"), "stay")
    pid_in(tmp_path / "pid")
    began = monotonic()
    calls.engine.close()
    assert monotonic() - began < BOUND / 2


# -- another user's ----------------------------------------------------------------------------------------------------------------


def program(name: str, *arguments: str, without: tuple[int, ...] = ()) -> subprocess.Popen[str]:
    """A program with an engine of its own that lacks these rights of root's."""
    if os.geteuid() != 0:
        pytest.skip("only root can start processes of other users, or hide them")
    command = [sys.executable, "-m", "tests.isolate.limited_program", name, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: drop(*without))


def read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("handler", "then"),
    [
        ("become_another_user", "stay"),
        ("child_of_another_user", "stay"),
        ("child_of_another_user", "return"),
        ("child_of_another_user", "crash"),
    ],
)
def test_another_users_process_holds_up_its_own_call_alone(tmp_path: Path, handler: str, then: str) -> None:
    running = program("another_user", handler, str(tmp_path / "pid"), then, without=(CAP_KILL,))
    pid = pid_in(tmp_path / "pid")
    try:
        assert read(running) == f"stuck {pid}: it belongs to another user, and may not be killed"
        assert read(running) == "others are punctual"
        assert not process_tree.is_dead(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
    assert read(running) == {"stay": "TimedOut", "return": "Succeeded", "crash": "Crashed"}[then]
    assert read(running) == "zombies: []"
    running.communicate(timeout=BOUND)
    assert running.returncode == 0


@pytest.mark.slow
def test_a_program_that_gives_up_root_still_ends_its_calls(tmp_path: Path) -> None:
    running = program("drops_root")
    for expected in ("TimedOut", "MemoryExceeded", "Stopped", "Succeeded soft", "closed"):
        assert read(running) == expected
    running.communicate(timeout=BOUND)
    assert running.returncode == 0


def test_an_isolate_that_its_keeper_killed_is_named_by_its_call() -> None:
    """The keeper knows no calls, and nobody can read the title of a process that is dead."""
    running = program("names_what_its_keeper_killed")
    assert read(running) == "['test: spin']"
    running.communicate(timeout=BOUND)
    assert running.returncode == 0


@pytest.mark.parametrize("then", ["stay", "return", "crash"])
def test_what_proc_hides_dies_with_its_call(tmp_path: Path, then: str) -> None:
    running = program("hidden", str(tmp_path / "pid"), then, without=(CAP_SYS_PTRACE,))
    pid = pid_in(tmp_path / "pid")
    assert read(running) == "hidden: True"
    assert read(running) == {"stay": "TimedOut", "return": "Succeeded", "crash": "Crashed"}[then]
    assert process_tree.is_dead(pid)
    running.communicate(timeout=BOUND)
    assert running.returncode == 0


@pytest.mark.slow
def test_a_memory_limit_holds_for_what_proc_has_come_to_hide() -> None:
    running = program("hidden_memory", without=(CAP_SYS_PTRACE,))
    for handler in ("undumpable_hog", "undumpable_with_a_child", "undumpable_with_a_child", "child_hides_late"):
        assert read(running) == f"{handler} MemoryExceeded"
    assert read(running) == "hidden: True"
    assert read(running) == "MemoryExceeded"
    assert read(running) == "had 50 MiB"
    running.communicate(timeout=BOUND)
    assert running.returncode == 0


@pytest.mark.slow
def test_an_isolate_that_proc_hides_is_replaced_when_it_is_too_large() -> None:
    running = program("recycled_where_hidden", without=(CAP_SYS_PTRACE,))
    assert read(running) == "['max memory']"
    running.communicate(timeout=BOUND)
    assert running.returncode == 0


def test_a_memory_limit_is_refused_where_proc_hides_an_isolate_from_its_start_on(tmp_path: Path) -> None:
    executable = tmp_path / "python"
    shutil.copy(os.path.realpath(sys.executable), executable)
    executable.chmod(0o111)
    running = program("hidden_from_the_start", str(executable), without=(CAP_SYS_PTRACE, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH))
    assert read(running).startswith("memory limit: /proc is mounted with hidepid")
    assert read(running) == "1"
    running.communicate(timeout=BOUND)
    assert running.returncode == 0


# -- tracers -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("handler", "limits", "kind"), [("write_pid_and_spin", {"hard": 2.0}, TimedOut), ("write_pid_and_crash", {}, Crashed)]
)
def test_a_traced_isolate_holds_up_its_own_report_alone(
    calls: Calls, tmp_path: Path, handler: str, limits: dict[str, float], kind: type[Outcome]
) -> None:
    warm(calls, 2)
    arguments = [str(tmp_path / "pid")] + ([str(tmp_path / "go")] if handler == "write_pid_and_crash" else [])
    held = calls.start(handler, *arguments, **limits)
    isolate = pid_in(tmp_path / "pid")
    tracer = trace(isolate)
    try:
        (tmp_path / "go").touch()
        eventually(lambda: stuck(calls), "nobody named it")
        (notice,) = stuck(calls)
        assert notice.pid == isolate and f"process {tracer.pid} traces it" in (notice.reason or "")
        assert_others_are_punctual(calls)
        assert held.outcomes == []
    finally:
        tracer.communicate(timeout=BOUND)
    assert isinstance(held.outcome(), kind)
    eventually(lambda: not zombies(calls), "zombies are left", SECOND)


# -- those that get away ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "handler",
    ["fork_past_the_isolate", "clone_a_sibling", "be_traced_by_a_daemon", "leave_a_daemon_without_its_first_thread"],
)
def test_what_gets_away_from_its_isolate_is_dead_soon_after_the_call(calls: Calls, tmp_path: Path, handler: str) -> None:
    if CLONE is None:
        pytest.skip("the numbers of system calls are not known for this machine")
    assert calls.value(handler, str(tmp_path / "pid")) == "done"
    daemon = pid_in(tmp_path / "pid")
    assert_dead(daemon, within=SECOND)
    eventually(lambda: daemon not in process_tree.children(keeper(calls)), "it is a zombie", SECOND)


def test_what_gets_away_dies_while_its_call_and_others_run_on(calls: Calls, tmp_path: Path) -> None:
    beside = calls.start("wait_for", str(tmp_path / "go"))
    assert calls.value("fork_past_the_isolate", str(tmp_path / "pid")) == "done"
    assert_dead(pid_in(tmp_path / "pid"), within=SECOND)
    assert beside.outcomes == []
    (tmp_path / "go").touch()
    assert isinstance(beside.outcome(), Succeeded)
