"""What a call leaves changed in its process: the next call meets the process as the first did, or another one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stem_iso import IsolatePool, SoftTimeLimitExceeded
from stem_iso.isolate.child import state
from tests.isolate import changes
from tests.isolate.calling import BOUND, eventually


class Watched:
    """A pool of one isolate, and why its isolates were replaced."""

    def __init__(self, **options: Any) -> None:
        self.pool = IsolatePool(1, spares=0, **options)
        self.reasons: list[str | None] = []
        self.pool.on(lambda event: self.reasons.append(event.reason) if event.action == "recycled" else None)

    def call(self, function: Any, *args: Any) -> Any:
        return self.pool.submit(function, *args).result(BOUND)


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    made = Watched()
    with made.pool:
        yield made


@pytest.mark.parametrize("name", changes.RESTORED)
def test_what_a_call_changes_is_put_back(watched: Watched, name: str) -> None:
    pid, before = watched.call(changes.where)
    assert watched.call(changes.change, name) == pid
    assert watched.call(changes.where) == (pid, before)
    with pytest.raises(ValueError, match=name):
        watched.call(changes.change_and_fail, name)
    assert watched.call(changes.where) == (pid, before)


@pytest.mark.parametrize("name", changes.REPLACED)
def test_what_cannot_be_put_back_costs_the_process(watched: Watched, name: str) -> None:
    pid, before = watched.call(changes.where)
    replaced = watched.reasons.count("process state")
    assert watched.call(changes.change, name) == pid
    other, after = watched.call(changes.where)
    assert other != pid and after == before
    eventually(lambda: watched.reasons.count("process state") == replaced + 1, f"the reasons: {watched.reasons}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_call_that_becomes_somebody_else_costs_the_process(watched: Watched) -> None:
    pid = watched.call(changes.become_nobody)
    assert watched.call(changes.where)[0] != pid


def test_a_watchdog_does_not_end_the_next_call(watched: Watched) -> None:
    assert watched.call(changes.sleep_and_print, 0) == "fine"  # a function that is new there would be one more start-up
    pid = watched.call(changes.watchdog)
    assert watched.call(changes.sleep_and_print, 0.8) == "fine"
    assert watched.call(os.getpid) == pid


def test_the_soft_limit_is_raised_where_the_call_before_blocked_all_signals(watched: Watched) -> None:
    watched.call(changes.change, "blocked signals")
    with pytest.raises(SoftTimeLimitExceeded):
        watched.pool.with_limits(soft=0.1, hard=30, raise_soft=True).submit(changes.sleep_and_print, 20).result(BOUND)


def test_what_start_up_set_up_stays() -> None:
    watched = Watched(initializer=changes.prepare)
    with watched.pool:
        pid, before = watched.call(changes.where)
        assert (before["tenant"], before["precision"], before["umask"]) == ("start-up", 50, 0o027)
        assert before["environment"]["STEM_ISO_TEST_PREPARED"] == "1"
        for name in ("context variable", "decimal context", "umask", "signal handler", "warnings", "environment", "alarm"):
            watched.call(changes.change, name)
        other, after = watched.call(changes.where)
    for each in (before, after):
        assert each.pop("timers")[1][1] == 1000
    assert (other, after) == (pid, before)


@pytest.mark.parametrize("initializer", [changes.start_thread, changes.start_child])
def test_threads_and_children_of_start_up_cost_no_process(initializer: Any) -> None:
    watched = Watched(initializer=initializer)
    with watched.pool:
        pid = watched.call(os.getpid)
        assert {watched.call(os.getpid) for _ in range(5)} == {pid}
        assert watched.call(changes.leave_thread) == pid
        second = watched.call(changes.leave_child)
        assert second != pid
        assert watched.call(os.getpid) not in (pid, second)
    assert watched.reasons.count("leftovers") == 2


def test_a_child_of_start_up_that_ended_is_still_there_to_be_asked() -> None:
    watched = Watched(initializer=changes.start_child_that_ends)
    with watched.pool:
        pid = watched.call(os.getpid)
        assert watched.call(changes.how_it_ended) == 3
        assert watched.call(os.getpid) == pid


@pytest.mark.parametrize(("how", "code"), [("return", 0), ("exit", 5), ("text", 1), ("raise", 1), ("pty", 0), ("thread", 0)])
def test_a_fork_that_comes_back_ends_there(how: str, code: int, tmp_path: Path) -> None:
    watched = Watched()
    with watched.pool:
        pid = watched.call(os.getpid)
        found = "the thread ended" if how == "thread" else ""
        assert watched.call(changes.fork, how, str(tmp_path / "late")) == (code, found)
        assert watched.call(os.getpid) == pid  # which neither saw a second reply nor garbage


def test_what_stood_in_a_buffer_at_a_fork_is_printed_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    watched = Watched()
    with watched.pool:
        watched.call(changes.fork, "return", str(tmp_path / "late"))
    printed = "".join(capfd.readouterr())
    assert printed.count("before the fork") == 1 and printed.count("child of return") == 1


def test_children_that_end_by_themselves_work_as_ever(watched: Watched) -> None:
    assert watched.call(changes.fork_by_library) == ["put by a child", 0, "ran\n"]


def test_a_row_whose_value_cannot_even_be_compared_is_lost_and_named() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ArithmeticError

        __hash__ = None  # type: ignore[assignment]

    values: dict[str, Any] = {"odd": 1, "plain": 1}
    rows = [
        state.StateRow(name, lambda name=name: values[name], lambda kept, now, name=name: values.update({name: kept})) for name in values
    ]
    found = state.ProcessState(tuple(rows))
    values.update(odd=Odd(), plain=2)
    assert found.restore() == state.Change(restored=("plain",), lost=("odd",))
    assert values["plain"] == 1


@pytest.mark.slow
def test_calls_that_wait_are_not_the_suspects_where_each_isolate_is_replaced(tmp_path: Path) -> None:
    """What waits is given to each of them in turn, and meets five that are just about to leave."""
    ready, go = str(tmp_path / "ready"), str(tmp_path / "go")
    with IsolatePool(5, spares=0) as pool:
        calls = [pool.submit(changes.disable_watch, i, ready, go) for i in range(12)]
        eventually(lambda: len(list(tmp_path.iterdir())) == 5, "five calls have begun")
        (tmp_path / "go").touch()
        assert [call.result(BOUND) for call in calls] == list(range(12))
