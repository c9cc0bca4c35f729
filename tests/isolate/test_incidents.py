"""What can happen to one call: the right outcome, once; nothing left behind; the neighbour untouched; the next call served."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import msgspec
import pytest

from stem_iso.isolate import wire
from stem_iso.isolate.engine.allocator import BOOT_TRIES, backoff
from stem_iso.isolate.interfaces import FAILED, REJECTED, RETRY, IsolateNotice
from stem_iso.isolate.keeper import process_tree
from stem_iso.outcome import BootFailed, Crashed, Failed, Stopped, StopReason, Succeeded, TimedOut
from tests.isolate.calling import BOUND, Calls, Recorder, assert_dead, descendants, eventually, pid_in

pytestmark = pytest.mark.repeat
EXPECTED_KINDS = {"/dev/null"}
Make = Callable[..., Calls]


@pytest.fixture
def neighbour(calls: Calls) -> Iterator[Recorder]:
    """A call beside, which nothing may disturb, and the next one, which must be served."""
    beside = calls.start("sleep", 0.6)
    yield beside
    assert isinstance(beside.outcome(), Succeeded)
    assert len(beside.outcomes) == 1
    assert calls.value("echo", "next") == "next"


@pytest.mark.parametrize(
    "handler", ["spin", "c_loop", "sleep_long", "ignore_signals", pytest.param("regex", marks=pytest.mark.slow), "swallow"]
)
def test_a_stuck_handler_dies_at_its_hard_limit(calls: Calls, neighbour: Recorder, handler: str) -> None:
    # The stack comes by a signal to a process that may have to wait for a CPU: limits far enough apart to wait for it on a busy machine.
    stuck = calls.start(handler, soft=0.2, hard=0.8)
    outcome = stuck.outcome()
    assert isinstance(outcome, TimedOut)
    assert outcome.limit == 0.8 <= outcome.elapsed
    assert stuck.levels() == ["soft", "hard"]
    assert [title for _, title in outcome.killed] == [f"test: {handler}"]
    assert_dead(*(pid for pid, _ in outcome.killed))
    for notice in stuck.notices:
        assert handler == "ignore_signals" or f"in {handler}" in notice.stack, "the stack names the stuck handler"
    assert len(stuck.outcomes) == 1


def test_a_child_dies_with_its_handler(calls: Calls, neighbour: Recorder, tmp_path: Path) -> None:
    stuck = calls.start("child", str(tmp_path / "pid"), hard=0.4)
    outcome = stuck.outcome()
    assert isinstance(outcome, TimedOut)
    child = pid_in(tmp_path / "pid")
    assert child in [pid for pid, _ in outcome.killed], "the outcome lists what was killed"
    assert_dead(child)


@pytest.mark.slow
def test_what_was_killed_is_listed_once_however_many_walked_the_tree(calls: Calls) -> None:
    outcome = calls.run("company", "two_hundred", hard=2.0)
    assert isinstance(outcome, TimedOut)
    pids = [pid for pid, _ in outcome.killed]
    assert len(pids) == len(set(pids)) > 1
    assert outcome.killed[0][1] == "test: company"


def test_a_daemon_with_an_empty_environment_dies_with_its_handler(calls: Calls, neighbour: Recorder, tmp_path: Path) -> None:
    stuck = calls.start("daemon", str(tmp_path / "pid"), hard=0.8)
    outcome = stuck.outcome()
    assert isinstance(outcome, TimedOut)
    assert_dead(pid_in(tmp_path / "pid"))


def test_a_daemon_that_a_finished_handler_left_behind_dies_before_the_success_is_reported(calls: Calls, tmp_path: Path) -> None:
    assert calls.value("daemon_and_return", str(tmp_path / "pid")) == "done"
    assert_dead(pid_in(tmp_path / "pid"))
    assert calls.value("echo", 1) == 1
    eventually(lambda: "leftovers" in calls.reasons(), "the isolate was not recycled")


@pytest.mark.slow
def test_a_daemon_whose_handler_crashed_dies_too(calls: Calls, neighbour: Recorder, tmp_path: Path) -> None:
    assert isinstance(calls.run("daemon_and_crash", str(tmp_path / "pid")), Crashed)
    assert_dead(pid_in(tmp_path / "pid"))


def test_an_isolate_with_a_thread_left_behind_is_not_used_again(calls: Calls) -> None:
    assert calls.value("thread_and_return") == "done"
    eventually(lambda: "leftovers" in calls.reasons(), "the isolate was not recycled")


def test_exit_code_0_without_an_answer_is_a_crash(calls: Calls, neighbour: Recorder) -> None:
    assert calls.run("leave", 0) == Crashed(exit_code=0)
    assert calls.run("leave", 3) == Crashed(exit_code=3)


@pytest.mark.parametrize("how", ["leave", "kill_itself"])
def test_a_death_before_the_limit_is_a_crash_also_when_it_is_seen_after_it(engines: Make, how: str) -> None:
    calls = engines(size=2, spares=0)
    for warm in [calls.start("sleep", 0.2) for _ in range(2)]:
        warm.outcome()
    beside = calls.start("sleep", 0.2, soft=0.05)
    crashed = calls.start("die_after", 0.1, how, hard=0.2)
    while monotonic() < crashed.sent_at + 0.4:
        sum(range(20_000_000))  # keeps the GIL: the engine, which the soft limit has woken, finds the death and the limit at once
    assert isinstance(crashed.outcome(), Crashed)
    assert crashed.notices == []
    assert isinstance(beside.outcome(), Succeeded)


@pytest.fixture
def keeper(calls: Calls) -> Iterator[int]:
    """Its pid; it must be the same at the end."""
    pid: int = calls.engine._isolates.keeper.pid
    yield pid
    os.kill(pid, signal.SIGCONT)
    assert calls.value("echo", 4) == 4
    assert calls.engine._isolates.keeper.pid == pid and not process_tree.is_dead(pid)


@pytest.mark.slow
def test_a_keeper_whose_report_could_not_be_read_in_time_is_not_killed(calls: Calls, keeper: int) -> None:
    assert calls.value("echo", 1) == 1
    began = monotonic()
    sum(range(10_000_000))
    enough = int(10_000_000 * 2.5 / (monotonic() - began))
    os.kill(keeper, signal.SIGSTOP)
    crashed = calls.start("leave", 3)
    eventually(lambda: any(each.died_at for each in list(calls.engine._isolates.by_number.values())), "nobody saw the death")
    waking = subprocess.Popen(["sh", "-c", f"sleep 0.2; kill -CONT {keeper}"])
    sum(range(enough))  # two seconds in which the report comes and the clock runs, and nobody here can see either
    assert crashed.outcome() == Crashed(exit_code=3)
    assert waking.wait(BOUND) == 0


@pytest.mark.slow
def test_a_keeper_that_takes_long_and_is_at_work_is_not_killed(calls: Calls, keeper: int) -> None:
    assert calls.value("echo", 1) == 1
    table, waiter = calls.engine._isolates.keeper.table, threading.Event()
    os.kill(keeper, signal.SIGSTOP)
    crashed = calls.start("leave", 3)
    end = monotonic() + 1.6
    while monotonic() < end:  # as a keeper does that kills what a storm of forks has left behind
        table.count_turn()
        waiter.wait(0.01)
    assert crashed.outcomes == []
    os.kill(keeper, signal.SIGCONT)
    assert crashed.outcome() == Crashed(exit_code=3)


def test_a_segfault_is_reported_with_its_signal_and_stack(calls: Calls, neighbour: Recorder) -> None:
    outcome = calls.run("segfault")
    assert isinstance(outcome, Crashed)
    assert outcome.signal == "SIGSEGV"
    assert "in segfault" in outcome.stack


def test_a_crash_shows_the_last_lines_of_stderr(calls: Calls) -> None:
    outcome = calls.run("last_words", "out of luck")
    assert isinstance(outcome, Crashed)
    assert "out of luck" in outcome.stderr


def test_sys_exit_is_a_failure_and_not_a_death(calls: Calls, neighbour: Recorder) -> None:
    before = calls.value("pid")
    outcome = calls.run("sys_exit")
    assert isinstance(outcome, Failed)
    assert outcome.error.type == "SystemExit"
    assert "crashed" not in calls.reasons()
    assert before


def test_a_kill_from_outside_is_a_crash(calls: Calls, neighbour: Recorder, tmp_path: Path) -> None:
    victim = calls.start("write_pid_and_spin", str(tmp_path / "pid"))
    os.kill(pid_in(tmp_path / "pid"), signal.SIGKILL)
    assert victim.outcome() == Crashed(signal="SIGKILL")


def test_garbage_on_the_call_pipe_costs_that_isolate_alone(calls: Calls, neighbour: Recorder) -> None:
    outcome = calls.run("garbage")
    assert isinstance(outcome, Crashed)
    assert "garbage on the call pipe" in outcome.stderr


NESTED = b"\x91" * 100_000 + b"\xc0"  # msgpack of a list in a list, in a list ...
FORGED = {
    "a failure nested without end": (wire.REPLY, bytes((FAILED, 0)) + NESTED),
    "a failure whose text is no text": (wire.REPLY, bytes((FAILED, 0)) + b"\x92\x82\xa4type\xa1\xff\xa7message\xa1\xff\x90"),
    "a failure of four gigabytes": (wire.REPLY, bytes((FAILED, 0)) + b"\xdd\xff\xff\xff\xff"),
    "a failure that is a number": (wire.REPLY, bytes((FAILED, 0)) + b"\x07"),
    "a retry at the end of time": (wire.REPLY, bytes((RETRY, 0)) + msgspec.msgpack.encode((float("inf"), None, None))),
    "a retry at no time": (wire.REPLY, bytes((RETRY, 0)) + msgspec.msgpack.encode((float("nan"), None, None))),
    "a retry without end": (wire.REPLY, bytes((RETRY, 0)) + msgspec.msgpack.encode((None, None, 1 << 63))),
    "a refusal nested without end": (wire.REPLY, bytes((REJECTED, 0)) + NESTED),
    "an empty reply": (wire.REPLY, b""),
    "a reply of no kind": (wire.REPLY, b"\xfe\0"),
    "a log record that is none": (wire.LOG, b"\x1e\xffshort"),
    "what only a host says": (wire.PONG, b""),
    "what only a core says": (wire.CALL, b""),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", FORGED)
def test_a_forged_frame_costs_the_isolate_that_sent_it_and_nobody_else(
    calls: Calls, neighbour: Recorder, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = calls.run("forge", *FORGED[what])
    assert isinstance(outcome, Crashed)
    assert "garbage on the call pipe" in outcome.stderr
    assert "a turn of the engine failed" not in caplog.text
    assert calls.value("request", b"well?") == b"WELL?"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["print", "log", "beat", "send", "request", "stack"])
def test_a_flood_of_words_holds_up_nobody_elses_limit(how: str, tmp_path: Path) -> None:
    calls = Calls(size=3, spares=1)
    try:
        floods = [calls.start("flood_until", str(tmp_path / "gate"), how) for _ in range(2)]
        times = [calls.run("spin", hard=0.3) for _ in range(3)]
        (tmp_path / "gate").touch()
        assert all(isinstance(flood.outcome(), Succeeded) for flood in floods)
    finally:
        (tmp_path / "gate").touch()
        calls.engine.close()
    assert all(isinstance(each, TimedOut) for each in times)
    assert max(each.elapsed for each in times if isinstance(each, TimedOut)) < 3


@pytest.mark.parametrize("size", [900 << 20, (1 << 31) - 1])
def test_a_frame_larger_than_anything_legal_is_garbage_at_its_header(size: int) -> None:
    calls = Calls(size=1, spares=0, largest_frame=1 << 20)
    try:
        outcome = calls.run("forge", wire.SEND, b"", size)
        assert isinstance(outcome, Crashed) and "garbage on the call pipe" in outcome.stderr
        assert calls.value("request", b"well?") == b"WELL?"
    finally:
        calls.engine.close()


def test_a_handler_that_stops_itself_dies_at_its_limit(calls: Calls, neighbour: Recorder) -> None:
    assert isinstance(calls.run("stop_itself", hard=0.3), TimedOut)


def test_a_handler_that_closes_every_descriptor_ends(calls: Calls, neighbour: Recorder) -> None:
    assert isinstance(calls.run("close_descriptors"), Crashed)


def test_a_soft_limit_can_be_raised_in_the_handler(calls: Calls) -> None:
    polite = calls.start("polite", soft=0.1, hard=5, raise_soft=True)
    assert isinstance(polite.outcome(), Succeeded)
    assert polite.levels() == ["soft"]


def test_silence_past_the_heartbeat_timeout_ends_like_a_hard_limit(calls: Calls) -> None:
    beating = calls.start("beat", 0.6, heartbeat=0.3)
    assert isinstance(beating.outcome(), Succeeded)
    outcome = calls.run("spin", heartbeat=0.2)
    assert isinstance(outcome, TimedOut)
    assert outcome.silent


def test_what_a_handler_prints_comes_before_its_end_and_has_a_cap(calls: Calls) -> None:
    call = calls.start("print_text", "hello")
    call.outcome()
    assert {(logger, text) for _, logger, text in call.lines} == {("stdout", "hello"), ("stderr", "hello")}
    logged = calls.start("log", "a warning")
    logged.outcome()
    assert (30, "handlers", "a warning") in logged.lines
    flood = calls.start("flood", 3 << 20)
    assert isinstance(flood.outcome(), Succeeded)
    assert sum(len(text) for _, logger, text in flood.lines if logger == "stdout") == 1 << 20
    assert flood.lines[-1][2].startswith(f"{2 << 20} bytes")


def test_an_answer_reaches_the_handler(calls: Calls) -> None:
    assert calls.value("request", b"quiet") == b"QUIET"


def test_large_data_goes_both_ways(calls: Calls) -> None:
    blob = os.urandom(1 << 20) * 20
    assert calls.value("echo", blob) == blob


def test_a_call_can_be_stopped_while_it_runs_and_while_it_waits(engines: Make) -> None:
    calls = engines(size=1, spares=0)
    running = calls.start("spin")
    running.until(lambda: running.sent_count)
    waiting = calls.start("echo", 1)
    calls.engine.stop(waiting.call, StopReason.REVOKED)  # type: ignore[attr-defined]
    assert waiting.outcome() == Stopped(StopReason.REVOKED, started=False)
    calls.engine.stop(running.call, StopReason.SHUTDOWN)  # type: ignore[attr-defined]
    stopped = running.outcome()
    assert isinstance(stopped, Stopped) and stopped.reason is StopReason.SHUTDOWN
    assert calls.value("echo", 2) == 2


def test_the_highest_priority_runs_first(engines: Make) -> None:
    calls = engines(size=1, spares=0)
    first = calls.start("sleep", 0.2)
    low, high = calls.start("when", priority=1), calls.start("when", priority=9)
    first.outcome()
    values = [outcome.result for outcome in (high.outcome(), low.outcome()) if isinstance(outcome, Succeeded)]
    import pickle

    assert pickle.loads(values[0]) < pickle.loads(values[1])


def test_an_isolate_is_replaced_after_so_many_calls(engines: Make) -> None:
    calls = engines(size=1, max_calls=2)
    pids = [calls.value("pid") for _ in range(6)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 2]
    assert set(calls.reasons()) == {"max calls"}


def test_an_isolate_that_grew_too_large_is_replaced(engines: Make) -> None:
    calls = engines(size=1, spares=0, max_memory=80 << 20)
    before = calls.value("pid")
    assert calls.value("pid") == before
    calls.run("grow", 100 << 20)
    assert calls.value("pid") != before
    assert calls.reasons() == ["max memory"]


@pytest.mark.slow
def test_stuck_calls_end_together_and_not_in_line(engines: Make) -> None:
    calls = engines(size=6, spares=0)
    [each.outcome() for each in [calls.start("sleep", 0.01) for _ in range(6)]]
    stuck = [calls.start("sleep_long", hard=0.5) for _ in range(6)]
    late = [outcome.dead_at for outcome in (each.outcome() for each in stuck) if isinstance(outcome, TimedOut)]
    assert len(late) == 6
    assert max(late) < 2.0, "each waits for its own process"


@pytest.mark.parametrize(
    ("boot", "message"), [(b"fail", "this import does not work"), pytest.param(b"die", "exit code 3", marks=pytest.mark.slow)]
)
def test_isolates_that_do_not_boot_end_in_a_clear_error_and_not_in_a_loop(engines: Make, boot: bytes, message: str) -> None:
    calls = engines(boot=boot)
    outcome = calls.run("echo", 1)
    assert isinstance(outcome, BootFailed)
    assert message in outcome.traceback
    assert len([notice for notice in calls.notices if notice.action == "spawned"]) <= 6


@pytest.mark.slow
def test_an_engine_whose_isolates_do_not_boot_costs_no_cpu(engines: Make) -> None:
    calls = engines(boot=b"die", size=1, spares=0)
    assert isinstance(calls.run("echo", 1), BootFailed)
    (thread,) = (each for each in threading.enumerate() if each.name == "stem_iso-engine")
    clock = time.pthread_getcpuclockid(thread.ident or 0)
    before = time.clock_gettime(clock)
    threading.Event().wait(backoff(BOOT_TRIES) + 1.0)  # until the next boot would be due, if anybody wanted one, and a second more
    assert time.clock_gettime(clock) - before < 0.05


def test_a_boot_that_hangs_is_ended_by_its_own_limit(engines: Make) -> None:
    calls = engines(boot=b"slow", boot_limit=0.5, size=1, spares=0)
    outcome = calls.run("echo", 1)
    assert isinstance(outcome, BootFailed)
    assert "longer than 0.5 s" in outcome.traceback


def test_an_isolate_that_dies_while_it_boots_is_replaced_and_no_call_is_charged(engines: Make) -> None:
    calls = engines(size=1, spares=0)
    waiting = calls.start("echo", 7)
    eventually(lambda: calls.notices, "no isolate was spawned")
    os.kill(calls.notices[0].pid, signal.SIGKILL)
    assert isinstance(waiting.outcome(), Succeeded)


class Interrupted(Recorder):
    """Ctrl-C falls into its submission, where the call has its isolate and is not sent yet."""

    def sent(self) -> None:
        super().sent()
        if self.sent_count == 1:
            raise KeyboardInterrupt


def test_ctrl_c_in_a_submission_costs_no_isolate_that_was_to_be_spawned(engines: Make) -> None:
    calls = engines(size=1, spares=1)
    eventually(lambda: calls.engine.stats().idle, "the spare does not boot")
    interrupted = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        calls.start("echo", 1, caller=interrupted)
    assert isinstance(interrupted.outcome(), Succeeded), "another isolate runs it"
    eventually(lambda: not calls.engine.stats().booting, "it waits for an isolate that nobody has asked for")


def test_what_an_interrupted_submission_left_is_done_once(engines: Make) -> None:
    notices: list[IsolateNotice] = []
    held, release = threading.Event(), threading.Event()

    def hold(notice: IsolateNotice) -> None:
        notices.append(notice)
        if notice.action == "ready":
            held.set()
            assert release.wait(BOUND)

    calls = engines(size=1, spares=1, on_isolate=hold)
    assert held.wait(BOUND)  # the engine's thread is in the callback
    interrupted = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        calls.start("echo", 1, caller=interrupted)
    following = calls.start("echo", 2)  # by this thread, before the engine's can clean up
    release.set()
    assert isinstance(interrupted.outcome(), Succeeded)
    assert isinstance(following.outcome(), Succeeded)
    eventually(lambda: not calls.engine.stats().booting, "it waits for an isolate that nobody has asked for")
    assert "resized" not in [notice.reason for notice in notices], "one more was spawned than is counted"


def test_closing_kills_what_runs_and_leaves_nothing(tmp_path: Path) -> None:
    before = set(descendants(os.getpid()))
    calls = Calls()
    running, beside = calls.start("daemon", str(tmp_path / "pid")), calls.start("spin")
    daemon = pid_in(tmp_path / "pid")
    tree_below = set(descendants(os.getpid())) - before
    calls.engine.close()
    assert_dead(daemon, *tree_below)
    assert all(isinstance(each.outcome(), Stopped) for each in (running, beside))
    late = calls.start("echo", 1)
    assert late.outcome() == Stopped(StopReason.SHUTDOWN, started=False)


@pytest.mark.slow
def test_no_descriptor_is_left_behind(engines: Make) -> None:
    from tests.isolate.calling import own_descriptors

    first = Calls(size=1, spares=0)
    first.run("echo", 1)
    first.engine.close()
    gc.collect()
    before = own_descriptors()
    second = Calls(size=1, spares=0)
    for name in ("spin", "spin"):
        second.run(name, hard=0.05)
    second.engine.close()
    gc.collect()
    assert own_descriptors() <= before


def test_an_isolate_has_nothing_of_its_parent(calls: Calls) -> None:
    found = calls.value("surroundings")
    assert found["stdin"] == "/dev/null"
    assert found["session"] == found["pid"]
    assert found["blocked"] == 0
    assert found["title"] == "test: surroundings"
    assert set(found["descriptors"].values()) <= EXPECTED_KINDS | {
        name for name in found["descriptors"].values() if name.startswith(("pipe:", "socket:"))
    }
    assert len(found["descriptors"]) <= 11, found["descriptors"]
    assert {"redis", "sqlite3", "click", "asyncio"}.isdisjoint(found["modules"])


def test_a_child_of_a_handler_can_be_terminated(calls: Calls) -> None:
    assert calls.value("terminate_a_child") == -signal.SIGTERM
    assert calls.value("terminate_a_fork") == signal.SIGTERM


def test_ctrl_c_to_the_whole_group_does_not_end_a_running_call(calls: Calls, tmp_path: Path) -> None:
    running = calls.start("write_pid_and_sleep", str(tmp_path / "pid"), 0.3)
    pid = pid_in(tmp_path / "pid")
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert isinstance(running.outcome(), Succeeded)
    assert not process_tree.is_dead(pid)
