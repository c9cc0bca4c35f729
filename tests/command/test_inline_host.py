"""Inline handlers of a worker started by command: a process of their own, which the worker's core outlives, whatever they do there."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

from stem_iso import TaskCancelled, TaskFailed, TaskState
from stem_iso.isolate.keeper import process_tree
from tests.command.conftest import Command
from tests.isolate.calling import assert_dead, eventually, pid_in

pytestmark = pytest.mark.repeat
Start = Callable[..., Command]


def starts(ledger: Path, count: int = 1) -> list[int]:
    """The pids that the handlers wrote, when there are so many."""
    eventually(lambda: ledger.exists() and ledger.read_text().count("\n") >= count, f"fewer than {count} started: {ledger}")
    return [int(line.split()[1]) for line in ledger.read_text().splitlines()]


def hosts(worker: Command) -> list[int]:
    return [pid for pid in process_tree.children(worker.process.pid) if process_tree.title(pid).startswith("stem_iso: inline host")]


@pytest.mark.slow
def test_inline_handlers_share_a_process_that_is_not_the_core(command: Start, tmp_path: Path) -> None:
    worker = command("--secret-env", "STEM_ISO_TEST_SECRET", env={"STEM_ISO_TEST_SECRET": "hunter2"})
    places = [worker.enqueue(name).result(timeout=30) for name in ("inline.where", "inline.where_async")]
    gate = str(tmp_path / "gate")
    running = [
        worker.enqueue(name, args={"ledger": str(tmp_path / "ledger"), "gate": gate}) for name in ("inline.wait", "inline.wait_async")
    ]
    pids = set(starts(tmp_path / "ledger", 2))
    Path(gate).touch()
    host = places[0]["pid"]
    assert pids == {host} == {each.result(timeout=30) for each in running}
    assert host != worker.core and hosts(worker) == [host]
    expected = {"pid": host, "session": host, "stdin": "/dev/null", "secret": "", "hooked": [host], "isolated": False}
    assert places == [{**expected, "title": "stem_iso: inline host"}] * 2


@pytest.mark.slow
def test_the_context_is_the_same_as_in_an_isolate(command: Start) -> None:
    worker = command()
    seen = []
    for name in ("look", "inline.look", "inline.look_async"):
        handle = worker.enqueue(name, headers={"h": 1}, meta={"m": 2}, max_retries=7)
        seen.append(handle.result(timeout=30))
        assert (seen[-1].pop("id"), seen[-1].pop("name")) == (handle.id, name)
        assert seen[-1].pop("isolated") == (name == "look")
    assert seen[0] == seen[1] == seen[2]


def test_many_handlers_ask_at_once_and_each_has_its_answers(command: Start) -> None:
    worker = command("-c", "16")
    handles = [worker.enqueue("inline.ask", args={"value": number}) for number in range(32)]
    assert [handle.result(timeout=60) for handle in handles] == [[number] * 3 for number in range(32)]
    assert [handle.status().meta for handle in handles] == [{"asked": number} for number in range(32)]


def test_what_is_printed_at_once_is_logged_line_by_line_under_its_task(command: Start, tmp_path: Path) -> None:
    worker = command()
    paths = [str(tmp_path / name) for name in ("one", "two")]
    handles = [worker.enqueue("inline.halves", args={"mine": mine, "others": others}) for mine, others in (paths, paths[::-1])]
    for handle in handles:
        handle.result(timeout=30)
        worker.says(f"[inline.halves {handle.id}] first half second half\n")
        worker.says(f"[inline.halves {handle.id}] logged by a handler\n")
    # Two lines that come together are one record.
    eventually(lambda: worker.log.read_text().count("said by a subprocess\n") == 2, "the subprocesses were not heard")


@pytest.mark.slow
def test_c_code_that_keeps_the_interpreter_lock_holds_up_no_lease_and_no_limit(command: Start, tmp_path: Path) -> None:
    worker = command("--shutdown-timeout", "600").ready()
    regex = worker.enqueue("inline.regex", args={"ledger": str(tmp_path / "regex")}, visibility_timeout=1)
    (host,) = starts(tmp_path / "regex")
    nap = worker.enqueue("nap", args={"ledger": str(tmp_path / "nap"), "seconds": 2.5}, heartbeat_timeout=1, visibility_timeout=1)
    spin = worker.enqueue("spin", args={"ledger": str(tmp_path / "spin")}, hard_time_limit=0.5)
    with pytest.raises(TaskFailed) as caught:
        spin.result(timeout=20)
    assert caught.value.error is not None and caught.value.error.type == "stem_iso.errors.TimeoutException"
    assert nap.result(timeout=20) == 0
    status = regex.status()
    assert (status.state, status.attempt, status.redeliveries) == (TaskState.RUNNING, 0, 0)
    worker.says("in inline_regex")
    assert worker.log.read_text().count(f"inline.regex {regex.id} reached its soft time limit") == 1
    worker.send(signal.SIGQUIT)
    assert worker.wait(15) == 0
    assert_dead(host)
    status = regex.status()
    assert (status.state, status.attempt, status.redeliveries) == (TaskState.QUEUED, 0, 0)


@pytest.mark.slow
def test_a_segfault_is_a_crash_report_and_the_next_task_has_a_new_host(command: Start) -> None:
    worker = command()
    before, core = worker.enqueue("inline.where").result(timeout=30)["pid"], worker.core
    with pytest.raises(TaskFailed) as caught:
        worker.enqueue("inline.segfault").result(timeout=30)
    error = caught.value.error
    assert error is not None and error.type == "stem_iso.errors.IsolateCrashed" and error.signal == "SIGSEGV"
    assert "in segfault" in error.stack and "last words" in error.message
    assert worker.enqueue("inline.where").result(timeout=30)["pid"] != before
    assert worker.core == core


@pytest.mark.slow
def test_a_coroutine_that_swallows_its_cancellation_dies_with_its_host_and_disturbs_nobody(command: Start, tmp_path: Path) -> None:
    worker = command()
    args = {"ledger": str(tmp_path / "wait"), "gate": str(tmp_path / "gate")}
    neighbours = [worker.enqueue(name, args=args) for name in ("inline.wait", "inline.wait_async")]
    old = starts(tmp_path / "wait", 2)[0]
    swallow = worker.enqueue("inline.swallow", args={"ledger": str(tmp_path / "swallow")})
    assert starts(tmp_path / "swallow") == [old]
    eventually(lambda: len(hosts(worker)) == 2, "no fresh host")
    assert worker.enqueue("inline.where").result(timeout=30)["pid"] != old  # new calls run elsewhere
    assert swallow.status().state is TaskState.RUNNING
    Path(args["gate"]).touch()
    assert [each.result(timeout=30) for each in neighbours] == [old] * 2
    with pytest.raises(TaskFailed) as caught:
        swallow.result(timeout=30)
    error = caught.value.error
    assert error is not None and error.type == "stem_iso.errors.TimeoutException" and "inline_swallow" in error.stack
    assert_dead(old)
    for level in ("soft", "hard"):
        text = f"inline.swallow {swallow.id} reached its {level} time limit"
        worker.says(text)
        assert worker.log.read_text().count(text) == 1


@pytest.mark.slow
def test_a_coroutine_that_blocks_the_loop_is_ended_and_who_waited_behind_it_runs_again(command: Start, tmp_path: Path) -> None:
    worker = command()
    args = {"ledger": str(tmp_path / "displaced"), "gate": str(tmp_path / "gate")}
    behind = worker.enqueue("inline.displaced", args=args)
    (old,) = starts(tmp_path / "displaced")
    Path(args["gate"]).touch()
    block = worker.enqueue("inline.block", args={"ledger": str(tmp_path / "block")})
    with pytest.raises(TaskFailed) as caught:
        block.result(timeout=30)
    error = caught.value.error
    assert error is not None and error.type == "stem_iso.errors.TimeoutException" and "in spin" in error.stack
    assert behind.result(timeout=30) != old
    status = behind.status()
    assert (status.attempt, status.redeliveries) == (0, 0)


@pytest.mark.slow
def test_terminate_cancels_a_coroutine_and_one_that_refuses_dies_with_its_host(command: Start, tmp_path: Path) -> None:
    worker = command()
    ran_in = []
    for name in ("inline.sleep", "inline.stubborn"):
        handle = worker.enqueue(name, args={"ledger": str(tmp_path / name)})
        ran_in += starts(tmp_path / name)
        handle.revoke(terminate=True)
        with pytest.raises(TaskCancelled):
            handle.result(timeout=30)
    assert ran_in[0] == ran_in[1]  # the first was cancelled, and its host lived on
    assert_dead(ran_in[1])
    assert worker.enqueue("inline.where").result(timeout=30)["pid"] != ran_in[1]


@pytest.mark.slow
def test_the_first_signal_finishes_inline_handlers_too(command: Start, tmp_path: Path) -> None:
    worker = command()
    args = {"ledger": str(tmp_path / "ledger"), "gate": str(tmp_path / "gate")}
    handles = [worker.enqueue(name, args=args) for name in ("inline.wait", "inline.wait_async")]
    pids = starts(tmp_path / "ledger", 2)
    worker.send(signal.SIGTERM)
    worker.says("to finish")
    Path(args["gate"]).touch()
    assert worker.wait() == 0
    assert [handle.result(timeout=1) for handle in handles] == pids


@pytest.mark.slow
def test_the_second_signal_kills_the_host_and_gives_back_without_using_an_attempt(command: Start, tmp_path: Path) -> None:
    worker = command("--shutdown-timeout", "600")
    ledger = tmp_path / "ledger"
    args = {"ledger": str(ledger)}
    handles = [worker.enqueue("inline.wait", args={**args, "gate": str(tmp_path / "never")})]
    handles += [worker.enqueue(name, args=args) for name in ("inline.sleep", "inline.stubborn")]
    starts(ledger, 3)
    handles.append(worker.enqueue("inline.regex", args=args))  # once the others run: nothing takes its first step beside it
    host, *_ = starts(ledger, 4)
    worker.send(signal.SIGTERM)
    worker.says("to finish")
    before = monotonic()
    worker.send(signal.SIGTERM)
    assert worker.wait(15) == 0
    assert monotonic() - before < 10
    assert_dead(host)
    for handle in handles:
        status = handle.status()
        assert (status.state, status.attempt, status.redeliveries) == (TaskState.QUEUED, 0, 0), status


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["core", "launcher"])
def test_what_an_inline_handler_spawned_dies_with_the_core_and_with_the_launcher(command: Start, tmp_path: Path, victim: str) -> None:
    worker = command("-c", "2").ready()
    worker.enqueue("inline.offspring", args={"ledger": str(tmp_path / "child"), "daemon": str(tmp_path / "daemon")})
    left = [pid_in(tmp_path / "child"), pid_in(tmp_path / "daemon"), *worker.below()]
    os.kill(worker.core if victim == "core" else worker.process.pid, signal.SIGKILL)
    if victim == "launcher":
        worker.process.wait()
    assert_dead(*left, within=1.0)


@pytest.mark.slow
def test_a_host_killed_from_outside_is_replaced_and_its_calls_are_reported(command: Start, tmp_path: Path) -> None:
    worker = command()
    sleep = worker.enqueue("inline.sleep", args={"ledger": str(tmp_path / "ledger")})
    (host,) = starts(tmp_path / "ledger")
    os.kill(host, signal.SIGKILL)
    with pytest.raises(TaskFailed) as caught:
        sleep.result(timeout=30)
    assert caught.value.error is not None and caught.value.error.signal == "SIGKILL"
    with contextlib.suppress(ProcessLookupError):
        os.kill(host, signal.SIGKILL)
    assert worker.enqueue("inline.where").result(timeout=30)["pid"] != host
    assert not re.search("a turn of the (worker|engine) failed", worker.log.read_text())


def failure(worker: Command, name: str, **args: object) -> TaskFailed:
    with pytest.raises(TaskFailed) as caught:
        worker.enqueue(name, args=args).result(timeout=30)
    return caught.value


@pytest.mark.slow
def test_text_that_no_encoder_takes_costs_no_seat(command: Start) -> None:
    worker = command("-c", "1")
    for name in ("guest.upload", "guest.upload_async") * 2:
        failed = failure(worker, name, file={"name": b"caf\xe9"})
        assert failed.status.reason == "invalid-arguments" and "a name that we take: caf?" in str(failed)
    assert "tests.worker.guests.caf?" in str(failure(worker, "guest.end", how="name"))
    assert worker.enqueue("guest.log").result(timeout=30) == "logged"
    worker.says("logged: caf?")


@pytest.mark.slow
def test_what_calls_of_a_host_change_is_put_back_when_none_runs(command: Start) -> None:
    worker = command("-c", "1")
    before = worker.enqueue("change.where").result(timeout=30), worker.enqueue("change.where_async").result(timeout=30)
    for name in ("folder", "umask", "environment", "blocked signals", "trace", "threads' trace", "context variable", "stdout replaced"):
        for task in ("change.change", "change.change_async"):
            worker.enqueue(task, args={"name": name}).result(timeout=30)
        after = worker.enqueue("change.where").result(timeout=30), worker.enqueue("change.where_async").result(timeout=30)
        assert after == before, name
    worker.says("it was put back: working folder")
    worker.enqueue("change.change", args={"name": "descriptor closed"}).result(timeout=30)
    pid, found = worker.enqueue("change.where").result(timeout=30)
    assert pid != before[0][0] and found == before[0][1]
    worker.says("cannot be put back: descriptors 0 to 2")


@pytest.mark.slow
def test_a_fork_of_a_hosts_call_that_comes_back_ends_there(command: Start, tmp_path: Path) -> None:
    worker = command("-c", "2")
    late = str(tmp_path / "late")
    neighbour = worker.enqueue("inline.wait_async", args={"ledger": str(tmp_path / "ledger"), "gate": str(tmp_path / "gate")})
    (host,) = starts(tmp_path / "ledger")
    for name in ("change.fork", "change.fork_async", "change.fork_isolated", "change.fork_async_isolated"):
        for how, code in (("exit", 5), ("return", 0)):
            assert worker.enqueue(name, args={"how": how, "path": late}).result(timeout=30) == [code, ""]
    assert worker.enqueue("change.fork_and_wait", args={"path": late}).result(timeout=30) == 1
    (tmp_path / "gate").touch()
    assert neighbour.result(timeout=30) == host == worker.enqueue("inline.where").result(timeout=30)["pid"]
    assert not Path(late).exists()
    assert worker.log.read_text().count("before the fork") == worker.log.read_text().count("child of") == 8


def test_the_loop_of_a_host_outlives_its_guests(command: Start) -> None:
    worker = command()
    host = worker.enqueue("inline.where").result(timeout=30)["pid"]
    for how, awaited in (("exit", "gather"), ("interrupt", "wait_for"), ("stop", "itself"), ("break", "itself")):
        failure(worker, "guest.end_part", how=how, awaited=awaited)
        assert worker.enqueue("guest.in_thread").result(timeout=30) == "fine"
    assert worker.enqueue("inline.where").result(timeout=30)["pid"] == host
    worker.says("SystemExit, which asyncio hands to its loop")
    worker.says("a new one is made")
