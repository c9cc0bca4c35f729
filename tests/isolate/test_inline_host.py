"""The inline host, without a queue: what shares a process, what is reported of whom, and what its death means."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from stem_iso.isolate import wire
from stem_iso.isolate.engine.shared_host.call import END_GRACE
from stem_iso.isolate.interfaces import FAILED, STOPPED, TIMED_OUT, Answer
from stem_iso.isolate.keeper import process_tree
from stem_iso.outcome import BootFailed, Crashed, Stopped, StopReason
from tests.isolate.calling import Recorder, assert_dead, eventually
from tests.isolate.hosted import HostCalls

pytestmark = pytest.mark.repeat
Hosts = Callable[..., HostCalls]


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made: list[HostCalls] = []

    def make(**options: Any) -> HostCalls:
        made.append(HostCalls(**options))
        return made[-1]

    yield make
    for each in made:
        each.engine.close()


def lines(recorder: Recorder) -> list[tuple[str, str]]:
    return [(source, text) for _, source, text in recorder.lines]


def started(ledger: Path, count: int = 1) -> None:
    eventually(lambda: ledger.exists() and ledger.read_text().count("start\n") >= count, "it did not start")


def test_many_calls_share_a_process_that_is_not_ours(hosts: Hosts, tmp_path: Path) -> None:
    calls = hosts()
    running = [calls.start("wait", str(tmp_path / "ledger"), str(tmp_path / "gate")) for _ in range(4)]
    started(tmp_path / "ledger", 4)
    host = [notice.pid for notice in calls.notices if notice.action == "ready"]
    assert process_tree.title(host[0]) == "stem_iso: inline host"
    (tmp_path / "gate").touch()
    assert {calls.unpickle(each.outcome()) for each in running} == set(host)
    assert host[0] != os.getpid()


def test_hosted_and_isolated_calls_share_the_seats_and_take_turns(hosts: Hosts, tmp_path: Path) -> None:
    calls = hosts(size=1)
    first = calls.start("wait", str(tmp_path / "ledger"), str(tmp_path / "gate"))
    started(tmp_path / "ledger")
    second, third = calls.start("pid"), calls.start("pid", priority=5)
    assert not second.sent_count and not third.sent_count
    (tmp_path / "gate").touch()
    for each in (first, second, third):
        each.outcome()
    assert third.sent_at < second.sent_at


class Silent(Recorder):
    """Answers when the test does."""

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[tuple[bytes, Answer | None]] = []

    def on_message(self, payload: bytes, answer: Answer | None) -> None:
        with self._changed:
            self.questions.append((payload, answer))
            self._changed.notify_all()

    def beat(self) -> None:
        with self._changed:
            self.beats += 1
            self._changed.notify_all()

    def answer(self, number: int, text: bytes) -> None:
        self.until(lambda: len(self.questions) > number)
        answer = self.questions[number][1]
        assert answer is not None
        answer(text)


def test_a_question_that_is_not_answered_holds_up_nobody_elses(hosts: Hosts) -> None:
    calls, silent = hosts(), Silent()
    calls.start("request", b"later", caller=silent)
    silent.until(lambda: silent.questions)
    assert calls.value("request", b"now") == b"NOW"
    assert not silent.outcomes
    silent.answer(0, b"at last")
    assert calls.unpickle(silent.outcome()) == b"at last"


def test_two_questions_of_one_call_take_turns(hosts: Hosts) -> None:
    calls, silent = hosts(), Silent()
    calls.start("ask_twice_at_once", b"one", b"two", caller=silent)
    silent.until(lambda: silent.beats)  # said after both
    assert [payload for payload, _ in silent.questions] == [b"one"]
    silent.answer(0, b"first")
    silent.answer(1, b"second")
    assert calls.unpickle(silent.outcome()) == [b"first", b"second"]


def test_what_a_call_prints_is_logged_for_it_and_what_no_call_prints_for_none(hosts: Hosts) -> None:
    calls = hosts()
    mine, other = calls.start("print_text", "mine"), calls.start("print_text", "yours")
    aside = calls.start("print_from_a_thread_of_its_own", "whose is this")
    for each in (mine, other, aside):
        each.outcome()
    for each, text in ((mine, "mine"), (other, "yours")):
        expected = [
            ("stdout", text),
            ("stderr", text),
            ("stdout", f"bytes of {text}"),
            ("users", f"{text} logged"),
            ("stdout", "no newline"),
        ]
        assert lines(each) == expected
    assert lines(aside) == []


def test_output_beyond_a_mebibyte_is_dropped_and_counted(hosts: Hosts) -> None:
    flood = hosts().start("flood", (1 << 20) + 5)
    flood.outcome()
    assert sum(len(text) for source, text in lines(flood) if source == "stdout") == 1 << 20
    assert lines(flood)[-1] == ("stem_iso", "5 bytes of output dropped beyond the first MiB")


def test_a_forked_child_cannot_send_for_the_call(hosts: Hosts) -> None:
    calls = hosts()
    forked = calls.start("fork_and_print", "from the child")
    assert calls.unpickle(forked.outcome()) == 7
    assert lines(forked) == []


def test_the_core_reports_the_soft_limit_of_c_code_that_keeps_the_interpreter_lock(hosts: Hosts, tmp_path: Path) -> None:
    calls = hosts()
    stuck = calls.start("regex", str(tmp_path / "ledger"), soft=0.3)
    started(tmp_path / "ledger")
    stuck.until(lambda: stuck.notices)
    assert stuck.levels() == ["soft"] and stuck.notices[0].limit == 0.3
    assert "in regex" in stuck.notices[0].stack
    assert calls.engine.stats().busy == 0


def test_a_soft_limit_that_the_host_reports_is_reported_once(hosts: Hosts) -> None:
    call = hosts().start("limit_reached_twice", soft=30)
    call.outcome()
    assert call.levels() == ["soft"] and call.notices[0].stack == "the host's own stack"


def test_a_crash_ends_all_that_had_started_and_the_next_call_has_a_new_host(hosts: Hosts, tmp_path: Path) -> None:
    calls = hosts()
    before = calls.value("pid")
    innocent = calls.start("wait", str(tmp_path / "ledger"), str(tmp_path / "never"))
    started(tmp_path / "ledger")
    crashing = calls.start("segfault")
    crash = crashing.outcome()
    assert isinstance(crash, Crashed)
    assert crash.signal == "SIGSEGV" and "in segfault" in crash.stack and "last words" in crash.stderr
    assert isinstance(innocent.outcome(), Crashed)
    assert (crashing.sent_count, innocent.sent_count) == (1, 1)
    assert calls.value("pid") != before


def test_calls_that_crash_one_after_the_other_are_no_boots_that_fail(hosts: Hosts) -> None:
    calls = hosts()
    assert all(isinstance(calls.run("segfault"), Crashed) for _ in range(4))
    assert calls.engine._isolates.hosts.roster.boot_failures == 0
    assert calls.value("pid") > 0


def test_what_had_not_begun_when_the_host_died_runs_in_the_next_one_uncounted(hosts: Hosts, tmp_path: Path) -> None:
    calls = hosts()
    host = calls.value("pid")
    begun = calls.start("wait", str(tmp_path / "ledger"), str(tmp_path / "never"))
    started(tmp_path / "ledger")
    os.kill(host, signal.SIGSTOP)
    unread = calls.start("pid")
    os.kill(host, signal.SIGKILL)
    assert isinstance(begun.outcome(), Crashed)
    assert calls.unpickle(unread.outcome()) != host
    assert (begun.sent_count, unread.sent_count) == (1, 2)


@pytest.mark.slow
def test_what_a_host_does_not_begin_runs_in_a_fresh_one_and_once(hosts: Hosts, tmp_path: Path) -> None:
    calls = hosts()
    old = calls.value("pid")
    asks = calls.start("ask_later", str(tmp_path / "asks"), str(tmp_path / "read"))
    started(tmp_path / "asks")
    holder = calls.start("hold", str(tmp_path / "hold"), str(tmp_path / "gate"))
    started(tmp_path / "hold")
    behind = [calls.start("wait", str(tmp_path / "ledger"), str(tmp_path / "gate")) for _ in range(2)]
    started(tmp_path / "ledger", 2)
    assert not holder.outcomes
    assert [each.sent_count for each in behind] == [2, 2]
    (tmp_path / "gate").touch()
    assert calls.unpickle(holder.outcome()) == "held"  # undisturbed
    assert old not in [calls.unpickle(each.outcome()) for each in behind]
    (tmp_path / "read").touch()
    assert calls.unpickle(asks.outcome()) == b"LATER"  # so the old host has read what was taken back, which lies before the answer
    eventually(lambda: process_tree.is_dead(old), "the old host is still there")
    assert (tmp_path / "ledger").read_text() == "start\n" * 2
    assert "garbage on the call pipe" not in calls.reasons()


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (wire.REPLY, bytes((FAILED, 0)) + b"\x91" * 100_000 + b"\xc0"),
        (wire.REPLY, bytes((TIMED_OUT, 0)) + b"\x91" * 100_000 + b"\xc0"),
        (wire.REPLY, bytes((STOPPED, 0)) + b"\x92\xa1\xff\xc2"),
        (wire.LIMIT, b"\0"),
        (wire.LIMIT, wire.LIMIT_HEAD.pack(wire.HARD_LIMIT, 1.0)),  # of a call that has no limit
        (wire.PRINT, b"\x07text of no stream"),
    ],
)
def test_a_forged_frame_costs_the_host_and_nothing_else(hosts: Hosts, kind: int, payload: bytes, caplog: pytest.LogCaptureFixture) -> None:
    calls = hosts()
    assert isinstance(calls.run("forge", kind, payload), Crashed)
    assert calls.value("pid") > 0
    assert "garbage on the call pipe" in calls.reasons()
    assert "a turn of the engine failed" not in caplog.text


def test_garbage_on_the_pipe_costs_the_host_and_nothing_else(hosts: Hosts) -> None:
    calls = hosts()
    assert isinstance(calls.run("garbage"), Crashed)
    assert calls.value("pid") > 0
    assert "garbage on the call pipe" in calls.reasons()


def test_a_boot_that_fails_ends_its_calls_with_the_childs_traceback_and_backs_off(hosts: Hosts) -> None:
    calls = hosts(boot=b"fail")
    outcome = calls.run("pid")
    assert isinstance(outcome, BootFailed) and "this import does not work" in outcome.traceback
    assert [notice.action for notice in calls.notices].count("boot-failed") == 3


def test_a_host_that_dies_as_soon_as_it_is_ready_is_not_started_for_ever(hosts: Hosts, tmp_path: Path) -> None:
    calls = hosts(boot=b"die soon", at_start=True)
    eventually(lambda: calls.reasons().count("crashed") >= 2, "it did not die")
    with calls.engine._lock:
        roster = calls.engine._isolates.hosts.roster
        assert roster.boot_failures >= 2 and roster.boot_after > 0


def test_a_shutdown_ends_a_thread_with_its_host_at_once(hosts: Hosts, tmp_path: Path) -> None:
    calls = hosts()
    host = calls.value("pid")
    running = [calls.start("wait", str(tmp_path / "ledger"), str(tmp_path / "never")) for _ in range(2)]
    started(tmp_path / "ledger", 2)
    calls.engine.stop(running[0].call, StopReason.REVOKED)  # type: ignore[attr-defined]
    before = monotonic()
    for each in running:
        calls.engine.stop(each.call, StopReason.SHUTDOWN)  # type: ignore[attr-defined]
    assert [each.outcome() for each in running] == [Stopped(StopReason.SHUTDOWN, started=True)] * 2
    assert running[0].ended_at - before < END_GRACE
    assert_dead(host)


def test_a_call_that_waits_for_its_host_can_be_taken_back(hosts: Hosts) -> None:
    calls = hosts(boot=b"fail")
    waiting = calls.start("pid")
    assert calls.engine.withdraw(waiting.call)  # type: ignore[attr-defined]
    assert not calls.engine.withdraw(waiting.call)  # type: ignore[attr-defined]


def test_close_leaves_no_host_and_ends_every_call(hosts: Hosts, tmp_path: Path) -> None:
    calls = hosts(size=1)
    host = calls.value("pid")
    running, waiting = calls.start("wait", str(tmp_path / "ledger"), str(tmp_path / "never")), calls.start("pid")
    started(tmp_path / "ledger")
    calls.engine.close()
    assert running.outcomes == [Stopped(StopReason.SHUTDOWN, started=True)]
    assert waiting.outcomes == [Stopped(StopReason.SHUTDOWN, started=False)]
    assert_dead(host)


def test_a_lost_keeper_takes_the_host_and_a_new_one_brings_the_next(hosts: Hosts, tmp_path: Path) -> None:
    calls = hosts()
    host = calls.value("pid")
    running = calls.start("wait", str(tmp_path / "ledger"), str(tmp_path / "never"))
    started(tmp_path / "ledger")
    os.kill(calls.engine._isolates.keeper.pid, signal.SIGKILL)
    assert isinstance(running.outcome(), Crashed)
    assert_dead(host)
    assert calls.value("pid") != host
