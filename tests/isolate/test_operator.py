"""What an operator sees and does at one engine: the isolates of this moment, the stack of what runs, and a kill."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stem_iso.isolate.engine.isolate_view import BUSY, SHARED, SPARE, STARTING
from stem_iso.isolate.keeper import process_tree
from stem_iso.isolate.pool.reply import error_of
from stem_iso.outcome import Crashed, Succeeded
from tests.isolate.calling import BOUND, Calls, assert_dead, eventually, pid_in
from tests.isolate.hosted import HostCalls

Make = Callable[..., Calls]


@pytest.fixture
def hosts() -> Iterator[Callable[..., HostCalls]]:
    made: list[HostCalls] = []

    def make(**options: Any) -> HostCalls:
        made.append(HostCalls(**options))
        return made[-1]

    yield make
    for each in made:
        each.engine.close()


def answer_of(ask: Callable[[int, Callable[[Any], None]], None], pid: int) -> Any:
    came, answers = threading.Event(), []

    def take(answer: Any) -> None:
        answers.append(answer)
        came.set()

    ask(pid, take)
    assert came.wait(BOUND), "no answer"
    return answers[0]


def busy_pid(calls: Calls) -> int:
    eventually(lambda: any(view.state == BUSY for view in calls.engine.views()), "nothing runs")
    return next(view.pid for view in calls.engine.views() if view.state == BUSY)


def test_a_busy_isolate_is_seen_with_its_call_and_its_memory(calls: Calls) -> None:
    running = calls.start("sleep_long", soft=20, hard=30)
    pid = busy_pid(calls)
    [view] = calls.engine.views()
    assert (view.pid, view.state, view.caller, view.limits.soft, view.limits.hard) == (pid, BUSY, running, 20.0, 30.0)
    assert running.sent_at - 1 <= view.sent_at <= running.sent_at + 1
    assert (view.memory() or 0) > 1 << 20


def test_memory_counts_what_the_call_has_spawned(calls: Calls, tmp_path: Path) -> None:
    calls.start("child", str(tmp_path / "pid"))
    below = pid_in(tmp_path / "pid")
    [view] = calls.engine.views()
    own = view.reader.resident()[0]
    assert below != view.pid and (view.memory() or 0) > own > 0


def test_an_isolate_without_a_call_is_a_spare(engines: Make) -> None:
    calls = engines(size=1, spares=1)
    eventually(lambda: [view.state for view in calls.engine.views()] == [SPARE], "no spare booted")


@pytest.mark.parametrize("handler", ["spin", "c_loop", "sleep_long", "regex"])
def test_the_stack_of_what_runs_names_it_and_disturbs_it_not(calls: Calls, handler: str) -> None:
    running = calls.start(handler)
    pid = busy_pid(calls)
    eventually(lambda: f"in {handler}" in (answer_of(calls.engine.stack, pid) or ""), "the stack does not name the handler")
    assert not running.outcomes and not running.notices
    assert [view.state for view in calls.engine.views()] == [BUSY]


def test_the_stack_is_asked_for_while_limits_ask_for_theirs(calls: Calls) -> None:
    running = calls.start("spin", soft=0.3, hard=0.8)
    pid = busy_pid(calls)
    while not running.outcomes and answer_of(calls.engine.stack, pid) is not None:
        pass
    assert running.levels() in (["soft", "hard"], ["soft"])
    running.outcome()
    assert running.levels() == ["soft", "hard"]
    assert all("in spin" in notice.stack for notice in running.notices)


def test_no_stack_of_what_does_not_run(engines: Make) -> None:
    calls = engines(size=1, spares=1)
    eventually(lambda: calls.engine.views(), "no spare booted")
    assert answer_of(calls.engine.stack, calls.engine.views()[0].pid) is None
    assert answer_of(calls.engine.stack, os.getpid()) is None
    assert answer_of(calls.engine.stack, 0) is None


def test_a_call_that_ends_meanwhile_answers_whoever_asked_for_its_stack(calls: Calls) -> None:
    for _ in range(20):
        running = calls.start("sleep", 0.002)
        pid = busy_pid(calls) if not running.outcomes else 0
        answer_of(calls.engine.stack, pid)
        assert isinstance(running.outcome(), Succeeded)


def test_a_killed_call_ends_as_crashed_by_an_operator_with_all_that_it_spawned(calls: Calls, tmp_path: Path) -> None:
    running = calls.start("child", str(tmp_path / "pid"))
    below, pid = pid_in(tmp_path / "pid"), busy_pid(calls)
    assert answer_of(calls.engine.kill, pid) is True
    outcome = running.outcome()
    assert isinstance(outcome, Crashed) and outcome.by_operator and outcome.signal == "SIGKILL" and not outcome.out_of_memory
    assert_dead(pid, below)
    assert "killed by an operator" in calls.reasons()
    assert calls.value("echo", "next") == "next"


def test_a_killed_spare_is_replaced_and_no_boot_has_failed(engines: Make) -> None:
    calls = engines(size=1, spares=1)
    eventually(lambda: [view.state for view in calls.engine.views()] == [SPARE], "no spare booted")
    pid = calls.engine.views()[0].pid
    assert answer_of(calls.engine.kill, pid) is True
    eventually(lambda: [view.state for view in calls.engine.views() if view.pid != pid] == [SPARE], "no other spare")
    assert not [notice for notice in calls.notices if notice.action == "boot-failed"]


def test_an_isolate_that_is_killed_at_its_boot_has_not_failed_to_boot(engines: Make) -> None:
    calls = engines(size=1, spares=1, boot=b"slow")
    eventually(lambda: [view.state for view in calls.engine.views()] == [STARTING], "none is starting")
    pid = calls.engine.views()[0].pid
    assert answer_of(calls.engine.kill, pid) is True
    eventually(lambda: [view.state for view in calls.engine.views() if view.pid != pid] == [STARTING], "no other")
    assert calls.reasons() == ["killed by an operator"]


def test_whoever_asked_for_the_stack_of_what_is_killed_meanwhile_is_answered(calls: Calls) -> None:
    running = calls.start("stop_itself")  # it cannot answer
    pid = busy_pid(calls)
    eventually(lambda: process_tree.state(pid) == "T", "it is not stopped")
    came, answers = threading.Event(), []

    def take(stack: str | None) -> None:
        answers.append(stack)
        came.set()

    calls.engine.stack(pid, take)
    calls.engine.kill(pid, lambda found: None)
    assert isinstance(running.outcome(), Crashed)
    assert came.wait(BOUND) and answers == [""]


def test_nobody_else_is_killed(calls: Calls) -> None:
    running = calls.start("sleep", 0.5)
    for pid in (os.getpid(), calls.engine.keeper, 1, 0):
        assert answer_of(calls.engine.kill, pid) is False
    assert isinstance(running.outcome(), Succeeded)


def test_a_shared_host_shows_where_all_its_calls_are_and_dies_with_them(hosts: Callable[..., HostCalls], tmp_path: Path) -> None:
    calls = hosts(size=2)
    running = [calls.start("wait", str(tmp_path / "ledger"), str(tmp_path / "gate"), soft=100) for _ in range(2)]
    eventually(lambda: [view.state for view in calls.engine.views()] == [SHARED], "no host")
    pid = calls.engine.views()[0].pid
    eventually(
        lambda: "in wait" in (found := answer_of(calls.engine.stack, pid) or "") and found.count("Stack (") == 2, "not both are there"
    )
    assert answer_of(calls.engine.kill, pid) is True
    for each in running:
        outcome = each.outcome()
        assert isinstance(outcome, Crashed) and outcome.by_operator
    assert_dead(pid)


def test_a_host_without_calls_has_no_stack(hosts: Callable[..., HostCalls], tmp_path: Path) -> None:
    calls = hosts(size=1)
    (tmp_path / "gate").touch()
    calls.start("wait", str(tmp_path / "ledger"), str(tmp_path / "gate")).outcome()
    assert answer_of(calls.engine.stack, calls.engine.views()[0].pid) is None


def test_the_error_of_a_crash_says_who_killed_it_also_in_another_process() -> None:
    error = pickle.loads(pickle.dumps(error_of(Crashed(None, "SIGKILL", by_operator=True))))
    assert error.by_operator and str(error) == "the isolate was killed by an operator under the call"
    assert len(error_of(Crashed(3)).args) == 5, "an older version can read it"
