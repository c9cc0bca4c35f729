"""What can happen to the calls of an `IsolatePool`: limits, crashes, hostile values and errors, data that is large, and the end."""

from __future__ import annotations

import gc
import hashlib
import io
import logging
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, wait
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stem_iso import (
    IsolateBootError,
    IsolateCrashed,
    IsolatePool,
    MemoryLimitExceeded,
    RemoteError,
    SoftTimeLimitExceeded,
    TimeoutException,
)
from stem_iso.errors import RemoteTraceback
from stem_iso.isolate.engine.isolate import Isolate
from stem_iso.isolate.interfaces import IsolateNotice, LimitNotice
from stem_iso.isolate.pool.future import IsolateFuture
from tests.isolate import work
from tests.isolate.calling import BOUND, assert_dead, eventually, own_descriptors, pid_in

MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def pool() -> Iterator[IsolatePool]:
    with IsolatePool(2) as made:
        yield made


# -- limits ----------------------------------------------------------------------------------------------------------------------------


def test_a_catastrophic_regex_dies_at_its_limit_and_the_error_says_all(pool: IsolatePool) -> None:
    strict = pool.with_limits(soft=0.3, hard=1.0)
    with pytest.raises(TimeoutException) as caught:
        strict.submit(re.fullmatch, r"(a+)+$", "a" * 40 + "b").result(BOUND)
    error = caught.value
    assert error.limit == 1.0 <= error.elapsed
    assert "in fullmatch" in error.stack
    assert "<string>" not in error.stack, "the handler's frames alone: not the command that its process was started with"
    assert 0 <= error.signalled_at <= error.dead_at
    [(pid, title)] = error.killed
    assert title == "stem_iso: fullmatch"
    assert_dead(pid)
    assert strict.submit(abs, -1).result(BOUND) == 1


@pytest.mark.parametrize("limits", [{"heartbeat": 0.3}, {"heartbeat": 0.3, "hard": 20}, {"heartbeat": 0.3, "soft": 0.1}])
def test_a_call_that_gives_no_sign_of_life_is_named_silent(limits: dict[str, float]) -> None:
    notices: list[Any] = []
    with IsolatePool(1) as pool:
        pool.on(notices.append)
        error = pool.with_limits(**limits).submit(work.spin).exception(BOUND)
    assert isinstance(error, TimeoutException)
    assert str(error) == "silent for 0.3 s (heartbeat_timeout)"
    assert error.silent and error.limit == 0.3 <= error.elapsed
    assert [notice.silent for notice in notices if isinstance(notice, LimitNotice) and notice.level == "hard"] == [True]
    again = pickle.loads(pickle.dumps(error))
    assert (again.silent, str(again), again.args) == (True, str(error), error.args)


def test_a_hard_limit_is_not_named_silence(pool: IsolatePool) -> None:
    error = pool.with_limits(hard=0.3, heartbeat=20).submit(work.spin).exception(BOUND)
    assert isinstance(error, TimeoutException)
    assert (error.silent, str(error)) == (False, "hard time limit of 0.3 s reached")


@pytest.mark.slow
def test_the_stack_of_a_hard_limit_comes_also_where_all_cores_are_busy(tmp_path: Path) -> None:
    """More calls than cores that compute until their limit: each waits for its turn to write where it is."""
    busy = 4 * len(os.sched_getaffinity(0))
    with IsolatePool(busy, spares=0) as pool:
        wait([pool.submit(work.pid_beside_others, str(tmp_path), busy) for _ in range(busy)], BOUND)
        stuck = [pool.with_limits(hard=1).submit(work.spin) for _ in range(busy)]
        errors = [future.exception(BOUND) for future in stuck]
    stacks = [error.stack for error in errors if isinstance(error, TimeoutException)]
    assert len(stacks) == busy
    assert all("in spin" in stack for stack in stacks), stacks


@pytest.mark.repeat
def test_no_function_dies_of_being_asked_for_its_stack(pool: IsolatePool) -> None:
    """Whenever C code calls Python, there is an instant in which the frames cannot be walked."""
    notices: list[Any] = []
    pool.on(notices.append)
    asked = pool.with_limits(soft=0.005, hard=60)
    for future in [asked.submit(work.call_python_from_c, 0.02) for _ in range(200)]:
        assert future.result(BOUND) is None
    stacks = [notice.stack for notice in notices if isinstance(notice, LimitNotice)]
    assert any("in call_python_from_c" in stack for stack in stacks), stacks


@pytest.mark.parametrize("how", ["blocks", "ignores", "takes"])
def test_a_function_that_keeps_the_signal_for_its_stack_dies_without_one_and_in_time(pool: IsolatePool, how: str) -> None:
    error = pool.with_limits(hard=0.5).submit(work.deaf_to_the_stack_signal, how).exception(BOUND)
    assert isinstance(error, TimeoutException)
    assert error.stack == ""
    assert error.elapsed < 0.5 * BOUND


@pytest.mark.repeat
@pytest.mark.parametrize("how", ["read", "recv", "wait", "lock"])
def test_a_soft_limit_is_raised_out_of_a_blocked_call_each_time(pool: IsolatePool, how: str) -> None:
    strict = pool.with_limits(soft=0.05, hard=20, raise_soft=True)
    for _ in range(4):
        with pytest.raises(SoftTimeLimitExceeded):
            strict.submit(work.blocked, how).result(BOUND)


@pytest.mark.repeat
def test_a_soft_limit_is_raised_however_many_of_its_signals_are_lost(pool: IsolatePool) -> None:
    with pytest.raises(SoftTimeLimitExceeded):
        pool.with_limits(soft=0.05, hard=60, raise_soft=True).submit(work.blocked_after_signals_were_lost, 5).result(BOUND)


def test_limits_are_of_the_view_and_not_of_the_pool(pool: IsolatePool, tmp_path: Path) -> None:
    with pool.with_limits(hard=0.2) as strict:
        stuck, free = strict.submit(work.spin), pool.submit(time.sleep, 0.4)
        assert isinstance(stuck.exception(BOUND), TimeoutException)
        assert free.result(BOUND) is None
    with pytest.raises(RuntimeError, match="after shutdown"):
        strict.submit(abs, 1)
    assert pool.submit(abs, -2).result(BOUND) == 2, "the view's end is not the pool's"


def test_the_end_of_a_view_waits_for_its_own_calls_alone(pool: IsolatePool, tmp_path: Path) -> None:
    other = pool.submit(work.wait_for, str(tmp_path / "gate"))
    with pool.with_limits(hard=60) as view:
        mine = view.submit(time.sleep, 0.05)
    assert mine.done() and not other.done()
    held = pool.with_limits(hard=60)
    waiting = [held.submit(work.wait_for, str(tmp_path / "gate")) for _ in range(5)]
    held.shutdown(wait=False, cancel_futures=True)
    assert any(future.cancelled() for future in waiting)
    assert not other.cancelled()
    (tmp_path / "gate").touch()


def test_limits_that_cannot_be_meant_are_refused(pool: IsolatePool) -> None:
    with pytest.raises(ValueError, match="must be below hard"):
        pool.with_limits(soft=2, hard=1)
    assert repr(pool.with_limits(soft=1, hard=2)).startswith("<soft=1.0, hard=2.0 of <IsolatePool ")


def test_the_soft_limit_can_be_raised_in_the_function(pool: IsolatePool) -> None:
    polite = pool.with_limits(soft=0.2, hard=20, raise_soft=True)
    assert polite.submit(work.until_soft_limit).result(BOUND) == "cleaned up"
    with pytest.raises(SoftTimeLimitExceeded):
        polite.submit(work.spin).result(BOUND)


def test_a_call_that_holds_too_much_memory_is_killed_and_one_may_have_a_core_of_its_own(pool: IsolatePool) -> None:
    small = pool.with_limits(memory="200MiB", hard=60)
    with pytest.raises(MemoryLimitExceeded) as caught:
        small.submit(work.hold, 400 * MEBIBYTE).result(BOUND)
    assert caught.value.limit == 200 * MEBIBYTE < caught.value.rss
    assert small.submit(work.hold, MEBIBYTE, 0.0).result(BOUND) == MEBIBYTE
    assert pool.with_limits(cpus=4096).submit(os.getpid).result(BOUND), "none are free: it runs on all of them"


@pytest.mark.slow
def test_listeners_get_limits_and_isolates_and_one_that_raises_harms_nobody() -> None:
    received: list[LimitNotice | IsolateNotice] = []
    with IsolatePool(1, spares=0) as pool:

        @pool.on
        def raising(notice: object) -> None:
            raise RuntimeError("a listener")

        assert pool.on(received.append) == received.append
        assert callable(raising)
        assert isinstance(pool.with_limits(soft=0.3, hard=1.0).submit(work.spin).exception(BOUND), TimeoutException)
        assert pool.submit(abs, -1).result(BOUND) == 1
    limits = [notice for notice in received if isinstance(notice, LimitNotice)]
    assert [(notice.level, notice.limit, notice.title) for notice in limits] == [
        ("soft", 0.3, "stem_iso: spin"),
        ("hard", 1.0, "stem_iso: spin"),
    ]
    assert all("in spin" in notice.stack for notice in limits)
    lives = [(notice.action, notice.reason) for notice in received if isinstance(notice, IsolateNotice)]
    assert ("spawned", None) in lives and ("ready", None) in lives and ("recycled", "hard limit") in lives


def test_a_callback_and_a_listener_that_block_delay_no_kill(tmp_path: Path) -> None:
    release = threading.Event()
    with IsolatePool(2) as pool:
        pool.on(lambda notice: release.wait(BOUND))
        blocking = pool.submit(abs, 1)
        blocking.add_done_callback(lambda future: release.wait(BOUND))
        assert blocking.result(BOUND) == 1
        error = pool.with_limits(hard=0.2).submit(work.spin).exception(BOUND)
        assert isinstance(error, TimeoutException)
        assert error.dead_at < 1.0, "the kill waited for somebody's callback"
        assert pool.submit(abs, -5).result(BOUND) == 5
        assert not release.is_set()
        release.set()


# -- deaths ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "args", "code"),
    [
        (work.crash, (), 7),
        (work.echo, (work.DiesWhenLoaded(),), 5),
        (work.dies_when_pickled, (), 6),
        (work.keywords, (work.DiesWhenFreed(),), 9),
    ],
    ids=["while it runs", "at decoding its arguments", "at encoding its result", "at freeing its arguments"],
)
def test_a_crash_costs_that_call_alone(pool: IsolatePool, function: Any, args: Any, code: int) -> None:
    beside = pool.submit(time.sleep, 0.2)
    error = pool.submit(function, *args).exception(BOUND)
    assert isinstance(error, IsolateCrashed)
    assert error.exit_code == code
    assert beside.result(BOUND) is None
    assert pool.submit(abs, -1).result(BOUND) == 1


def test_sys_exit_is_a_failure_of_the_call(pool: IsolatePool) -> None:
    before = pool.submit(work.pid).result(BOUND)
    error = pool.submit(work.leave_by_exit).exception(BOUND)
    assert isinstance(error, SystemExit)
    assert error.code == 3
    assert before


def test_an_initializer_that_raises_fails_every_call_with_its_traceback_and_does_not_loop() -> None:
    spawned: list[object] = []
    with IsolatePool(2, initializer=work.fail, initargs=("the model is missing",)) as pool:
        pool.on(lambda notice: spawned.append(notice) if getattr(notice, "action", "") == "spawned" else None)
        futures = [pool.submit(abs, number) for number in range(20)]
        for future in futures:
            error = future.exception(BOUND)
            assert isinstance(error, IsolateBootError)
            assert "in fail" in error.traceback and "the model is missing" in error.traceback
    assert len(spawned) < 10


def test_initializer_and_preload_run_once_before_the_first_call() -> None:
    with IsolatePool(1, spares=0, initializer=work.keep, initargs=("a model",), preload=("colorsys",)) as pool:
        assert [pool.submit(work.kept).result(BOUND) for _ in range(3)] == ["a model"] * 3
        assert pool.submit(eval, "'colorsys' in __import__('sys').modules").result(BOUND)


def test_a_module_that_cannot_be_preloaded_is_a_boot_error() -> None:
    with IsolatePool(1, preload=("no_such_module_anywhere",)) as pool:
        error = pool.submit(abs, 1).exception(BOUND)
    assert isinstance(error, IsolateBootError)
    assert "no_such_module_anywhere" in error.traceback


@pytest.mark.slow
def test_isolates_are_replaced_after_so_many_calls_and_when_they_grow() -> None:
    with IsolatePool(1, spares=0, max_tasks_per_isolate=2, max_memory_per_isolate="200MiB") as pool:
        pids = [pool.submit(work.pid).result(BOUND) for _ in range(4)]
        assert pids[0] == pids[1] != pids[2] == pids[3]
        assert pool.submit(work.keep, "small").result(BOUND) == 1
        pool.submit(work.keep, bytearray(os.urandom(MEBIBYTE) * 300)).result(BOUND)
        assert pool.submit(work.keep, "in another").result(BOUND) == 1


def test_secrets_stay_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEM_ISO_TEST_SECRET", "hidden")
    with IsolatePool(1, spares=0, secrets=("STEM_ISO_TEST_SECRET",)) as pool:
        assert pool.submit(os.getenv, "STEM_ISO_TEST_SECRET").result(BOUND) is None
        assert pool.submit(os.getenv, "PATH").result(BOUND) == os.environ["PATH"]


@pytest.mark.slow
def test_a_pool_can_be_resized_while_it_runs(tmp_path: Path) -> None:
    with IsolatePool(1, spares=0) as pool:
        held = [pool.submit(work.wait_for, str(tmp_path / "gate")) for _ in range(3)]
        eventually(lambda: pool.stats().busy == 1, "the first did not begin")
        assert pool.stats().waiting == 2
        pool.resize(3, spares=1)
        eventually(lambda: pool.stats().busy == 3 and pool.stats().spare == 1, "it did not grow")
        assert repr(pool) == "<IsolatePool 0 idle, 3 busy, 1 spare | 0 waiting>"
        pool.resize(1, spares=0)
        (tmp_path / "gate").touch()
        assert [future.result(BOUND) for future in held] == [None] * 3
        eventually(lambda: repr(pool) == "<IsolatePool 1 idle, 0 busy, 0 spare | 0 waiting>", "it did not shrink")
        with pytest.raises(ValueError, match="greater than 0"):
            pool.resize(0)


# -- values ----------------------------------------------------------------------------------------------------------------------------


def test_closures_lambdas_partials_methods_and_local_classes_travel(pool: IsolatePool) -> None:
    step = 3

    class Local:
        value = 4

        def method(self, by: int) -> int:
            return self.value * by

    assert pool.submit(lambda value: value + step, 4).result(BOUND) == 7
    step = 30  # what it captured has changed since: its bytes come anew with each call
    assert pool.submit(lambda value: value + step, 4).result(BOUND) == 34
    assert pool.submit(partial(lambda a, b: a - b, 10), 4).result(BOUND) == 6
    assert pool.submit(partial(pow, 2), 5).result(BOUND) == 32
    assert pool.submit("abc".upper).result(BOUND) == "ABC"
    assert pool.submit(Local().method, 5).result(BOUND) == 20
    made = pool.submit(lambda: Local()).result(BOUND)
    assert type(made) is Local
    assert pool.submit(dict, a=1).result(BOUND) == {"a": 1}


def test_a_function_of_a_module_travels_by_name_and_sees_the_modules_own_state(pool: IsolatePool) -> None:
    with IsolatePool(1, spares=0) as own:
        assert [own.submit(work.keep, "x").result(BOUND) for _ in range(3)] == [1, 2, 3]
    assert work.seen == []


def test_a_module_found_on_a_path_that_was_added_later_is_found_in_the_isolate(
    pool: IsolatePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pool.submit(abs, 1).result(BOUND) == 1
    (tmp_path / "found_later.py").write_text("def answer():\n    return 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import found_later  # type: ignore[import-not-found]

    assert pool.submit(found_later.answer).result(BOUND) == 42


def test_a_module_that_the_isolate_cannot_import_fails_its_calls_and_nothing_else(pool: IsolatePool, tmp_path: Path) -> None:
    path = tmp_path / "only_here.py"
    path.write_text("import stem_iso_nowhere\n")
    import importlib.util

    spec = importlib.util.spec_from_loader("only_here", loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    exec("def answer():\n    return 1\n", module.__dict__)
    sys.modules["only_here"] = module
    try:
        for _ in range(3):
            with pytest.raises(ModuleNotFoundError, match="only_here"):
                pool.submit(module.answer).result(BOUND)
    finally:
        del sys.modules["only_here"]
    assert pool.submit(abs, -1).result(BOUND) == 1


def test_a_hundred_arguments_that_cannot_be_pickled_fail_their_calls_and_no_other(pool: IsolatePool) -> None:
    futures = [pool.submit(work.echo, threading.Lock() if number % 2 else number) for number in range(200)]
    for number, future in enumerate(futures):
        if number % 2:
            with pytest.raises(TypeError, match="cannot pickle") as caught:
                future.result(BOUND)
            assert "arguments of echo cannot be sent" in caught.value.__notes__[0]
        else:
            assert future.result(BOUND) == number


def test_a_result_that_cannot_be_pickled_or_loaded_fails_its_call(pool: IsolatePool) -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        pool.submit(work.unpicklable).result(BOUND)
    future = pool.submit(work.loads_nowhere)
    with pytest.raises(RuntimeError, match="it cannot be loaded") as caught:
        future.result(BOUND)
    assert "cannot be loaded in this process" in caught.value.__notes__[0]
    assert future.exception() is caught.value


# -- errors ----------------------------------------------------------------------------------------------------------------------------


def test_an_error_keeps_type_arguments_notes_and_cause_and_carries_the_remote_traceback(pool: IsolatePool) -> None:
    error = pool.submit(work.raise_with_cause_and_notes).exception(BOUND)
    assert type(error) is ValueError
    assert error.args == ("outer", 2)
    assert error.__notes__ == ["a note"]
    assert type(error.__cause__) is KeyError
    remote = error.__cause__.__cause__
    assert isinstance(remote, RemoteTraceback)
    assert "work.py" in str(remote) and "in raise_with_cause_and_notes" in str(remote)
    assert "child/functions.py" not in str(remote), "the frames above the function are ours and say nothing"


def test_a_group_keeps_its_structure_and_its_members_their_causes(pool: IsolatePool) -> None:
    error = pool.submit(work.raise_group).exception(BOUND)
    assert type(error) is ExceptionGroup
    member, nested = error.exceptions
    assert type(member) is ValueError and type(member.__cause__) is FileNotFoundError
    assert isinstance(nested, ExceptionGroup) and type(nested.exceptions[0]) is TypeError
    partly = pool.submit(work.raise_group_with_a_lock).exception(BOUND)
    assert isinstance(partly, ExceptionGroup)
    assert [type(each) for each in partly.exceptions] == [ValueError, RemoteError]


@pytest.mark.parametrize(
    ("function", "type_name", "message"),
    [
        (work.raise_two, "TwoArguments", "1 and 2"),
        (work.raise_odd_reduce, "OddReduce", "the text"),
        (work.raise_odd_text, "OddText", "could not be made"),
        (work.raise_lock, "HoldsALock", "holds a lock"),
        (work.raise_another, "TurnsIntoAnother", "first"),
    ],
)
def test_an_error_that_does_not_survive_comes_as_text(pool: IsolatePool, function: Any, type_name: str, message: str) -> None:
    error = pool.submit(function).exception(BOUND)
    assert isinstance(error, RemoteError)
    assert error.type == f"tests.isolate.work.{type_name}"
    assert message in error.message
    assert f"in {function.__name__}" in error.traceback


def test_an_error_of_a_local_class_comes_as_its_own_type(pool: IsolatePool) -> None:
    error = pool.submit(work.raise_local).exception(BOUND)
    assert error is not None
    assert (type(error).__name__, error.args) == ("Local", ("made in a function",))


def test_an_error_that_is_false_keeps_its_type(pool: IsolatePool) -> None:
    assert type(pool.submit(work.raise_false).exception(BOUND)) is work.IsFalse


def test_the_counts_can_be_asked_for_wherever_a_signal_interrupts(pool: IsolatePool) -> None:
    with pool._backend.engine._lock:
        asking = threading.Thread(target=pool.stats, daemon=True)
        asking.start()
        asking.join(2.0)
        assert not asking.is_alive()


def test_a_circle_of_causes_is_cut_where_it_closes(pool: IsolatePool) -> None:
    error = pool.submit(work.raise_circle).exception(BOUND)
    assert type(error) is ValueError and type(error.__cause__) is KeyError
    assert isinstance(error.__cause__.__cause__, RemoteTraceback)


def test_a_message_of_a_hundred_megabytes_is_cut(pool: IsolatePool) -> None:
    error = pool.submit(work.raise_long).exception(BOUND)
    assert isinstance(error, RemoteError)
    assert error.type == "ValueError"
    assert len(error.message) < 100_000 and len(error.traceback) < 1_000_000


# -- what is large ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65_536, (256 << 10) - 40, 256 << 10, (256 << 10) + 1, 5 * MEBIBYTE])
def test_bytes_of_every_size_come_back_as_they_were(pool: IsolatePool, size: int) -> None:
    data = os.urandom(size)
    for value in (data, bytearray(data), [data, data], data.hex()):
        assert pool.submit(work.echo, value).result(BOUND) == value


def test_arrays_come_back_as_ones_that_can_be_written_to(pool: IsolatePool) -> None:
    import numpy

    array = numpy.arange(MEBIBYTE).reshape(1024, 1024)
    back = pool.submit(work.echo, array).result(BOUND)
    assert (back == array).all()
    back[0, 0] = 7
    assert array[0, 0] == 0
    array.flags.writeable = False
    assert not pool.submit(work.echo, array).result(BOUND).flags.writeable
    turned = pool.submit(work.echo, numpy.asfortranarray(back)[::2]).result(BOUND)
    assert (turned == numpy.asfortranarray(back)[::2]).all()


def test_views_stay_valid_while_they_are_referenced(pool: IsolatePool) -> None:
    import pickle

    first = pool.submit(work.echo, work.Block(bytearray(b"a" * MEBIBYTE))).result(BOUND).buffer
    second = pool.submit(work.echo, work.Block(b"b" * MEBIBYTE)).result(BOUND).buffer
    assert bytes(first[:3]) == b"aaa" and not first.readonly
    assert bytes(second[:3]) == b"bbb" and second.readonly
    assert pool.submit(work.sum_and_write, pickle.PickleBuffer(bytearray(MEBIBYTE))).result(BOUND) == (MEBIBYTE, True)
    assert pool.submit(work.sum_and_write, pickle.PickleBuffer(bytes(MEBIBYTE))).result(BOUND) == (MEBIBYTE, False)


@pytest.mark.slow
def test_a_thousand_large_calls_at_once_cost_no_more_descriptors_than_there_are_seats_for() -> None:
    data = os.urandom(300 << 10)
    with IsolatePool(2) as pool:
        pool.submit(work.echo, data).result(BOUND)
        before = own_descriptors()
        futures = [pool.submit(work.echo, data) for _ in range(300)]
        assert own_descriptors() - before < 100
        results = [future.result(BOUND) for future in futures]
        assert all(result == data for result in results)
        assert own_descriptors() - before < 20


def test_large_data_in_flight_while_cancelling_or_closing_ends() -> None:
    data = os.urandom(MEBIBYTE) * 30
    pool = IsolatePool(2)
    futures = [pool.submit(work.echo, data) for _ in range(6)]
    futures[0].cancel()
    pool.kill_workers()
    assert all(future.done() for future in futures)
    for future in futures:
        if not future.cancelled():
            assert future.result() == data


@pytest.mark.slow
def test_killed_at_every_stage_of_a_large_result_there_is_no_wrong_outcome() -> None:
    killed = 0
    with IsolatePool(1) as pool:
        pool.submit(work.of_bytes, 1).result(BOUND)
        # A busy machine looks at the limits of small ones when they are done.
        for size in (2 * MEBIBYTE, 8 * MEBIBYTE, 32 * MEBIBYTE, 128 * MEBIBYTE):
            for step in range(15):
                future = pool.with_limits(hard=0.0004 * (step + 1)).submit(work.of_bytes, size)
                try:
                    assert future.result(BOUND) == b"x" * size
                except TimeoutException:
                    killed += 1
            if killed:
                return
    pytest.fail("none was killed")


def test_a_memfd_without_its_seal_is_refused() -> None:
    from stem_iso.isolate.payload import UnreadablePayload, mapped

    descriptor = os.memfd_create("unsealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, b"x" * 100)
    with pytest.raises(UnreadablePayload, match="not sealed"):
        mapped(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.close(descriptor)


@pytest.mark.slow
def test_no_descriptor_no_memfd_and_no_process_is_left(tmp_path: Path) -> None:
    from tests.isolate.calling import descendants

    IsolatePool(1, spares=0).shutdown()
    gc.collect()
    before, children = own_descriptors(), set(descendants(os.getpid()))
    with IsolatePool(2) as pool:
        data = os.urandom(MEBIBYTE)
        assert pool.submit(work.echo, data).result(BOUND) == data
        assert pool.with_limits(hard=0.3).submit(work.keywords, data, work.spin).result(BOUND)
        stuck = pool.with_limits(hard=0.3).submit(work.write_pid_and_spin, str(tmp_path / "pid"), data)
        assert isinstance(stuck.exception(BOUND), TimeoutException)
        running = pool.submit(work.write_pid_and_spin, str(tmp_path / "other"), data)
        pid_in(tmp_path / "other")
        running.cancel()
        never_asked = pool.submit(work.echo, data)
    assert never_asked.done()
    del never_asked, stuck, running
    gc.collect()
    assert own_descriptors() <= before
    assert set(descendants(os.getpid())) <= children


# -- the end ---------------------------------------------------------------------------------------------------------------------------


def test_kill_workers_ends_everything_at_once(tmp_path: Path) -> None:
    pool = IsolatePool(1, spares=0)
    running, waiting = pool.submit(work.write_pid_and_spin, str(tmp_path / "pid")), pool.submit(abs, 1)
    victim = pid_in(tmp_path / "pid")
    pool.kill_workers()
    assert_dead(victim)
    for future in (running, waiting):
        with pytest.raises(CancelledError):
            future.result(BOUND)
    assert repr(pool) == "<IsolatePool shut down>"


def test_kill_workers_does_not_wait_behind_a_callback() -> None:
    called, release = threading.Event(), threading.Event()
    pool = IsolatePool(1, spares=0)
    pool.submit(time.sleep, 0.1).add_done_callback(lambda future: (called.set(), release.wait(BOUND)))
    assert called.wait(BOUND)
    killer = threading.Thread(target=pool.kill_workers)
    killer.start()
    killer.join(5.0)
    waited = killer.is_alive()
    release.set()
    killer.join()
    assert not waited


def test_a_callback_for_which_no_thread_starts_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, start = IsolatePool(1, spares=0), threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "stem_iso-callbacks":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    future = pool.submit(time.sleep, 0.1)
    future.add_done_callback(print)
    assert future.result(BOUND) is None
    ending = threading.Thread(target=pool.shutdown, daemon=True)
    ending.start()
    ending.join(5.0)
    assert not ending.is_alive()


def test_a_callback_and_a_listener_may_shut_the_pool_down_at_once() -> None:
    both, done = threading.Barrier(2), [threading.Event(), threading.Event()]

    def shut(which: int) -> None:
        both.wait(BOUND)
        pool.shutdown()
        done[which].set()

    pool = IsolatePool(1, spares=0)
    future = pool.submit(time.sleep, 0.1)
    future.add_done_callback(lambda future: shut(0))
    pool.on(lambda notice: shut(1) if notice.action == "killed-by-test" else None)  # type: ignore[union-attr]
    pool._backend.notify(IsolateNotice("killed-by-test", 0, None, ""))
    assert all(each.wait(5.0) for each in done), "each waits for the other's thread"


def test_ctrl_c_in_the_block_ends_it_at_once(tmp_path: Path) -> None:
    futures = []

    def block() -> None:
        with IsolatePool(1) as pool:
            futures.append(pool.submit(work.write_pid_and_spin, str(tmp_path / "pid")))
            pid_in(tmp_path / "pid")
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert_dead(pid_in(tmp_path / "pid"))
    assert futures[0].cancelled()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it also falls into finalizers
def test_ctrl_c_anywhere_in_a_submit_loses_no_isolate_and_no_other_call() -> None:
    """A timer interrupts the main thread between any two steps of `submit`, a few hundred times."""

    class Interrupted(BaseException):
        pass

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    kept: list[Future[int]] = []
    interrupts = 0

    def submit_until_interrupted(pool: IsolatePool) -> None:
        # A function of its own: CPython 3.13 takes the jump at the end of a `while` as outside of the `try` around it.
        signal.setitimer(signal.ITIMER_REAL, 0.0007)
        swallowed = time.monotonic() + 0.05  # an interruption that falls into a finalizer ends there
        while time.monotonic() < swallowed:
            kept.append(pool.submit(abs, -len(kept)))
            del kept[:-50]
        signal.setitimer(signal.ITIMER_REAL, 0)

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with IsolatePool(2) as pool:
            pool.submit(abs, 1).result(BOUND)
            end = time.monotonic() + 2.0
            while time.monotonic() < end or (interrupts <= 20 and time.monotonic() < end + BOUND):
                try:
                    submit_until_interrupted(pool)
                except Interrupted:
                    interrupts += 1
                eventually(lambda: pool.stats().waiting <= 200, f"what waits does not begin: {pool!r}")
            signal.setitimer(signal.ITIMER_REAL, 0)
            for future in kept:
                future.result(BOUND)
            assert pool.submit(abs, -3).result(BOUND) == 3
            eventually(lambda: pool.stats().busy == 0, f"an isolate was lost: {pool!r}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert interrupts > 20


def test_a_call_whose_submit_was_interrupted_gets_its_own_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes when the engine has the call and nobody has the future: what the call was given stays open until it has ended."""
    gate, ledger, data = tmp_path / "gate", tmp_path / "ledger", os.urandom(4 << 20)

    def interrupted(future: IsolateFuture[Any], call: object = None) -> None:
        raise KeyboardInterrupt

    with IsolatePool(1) as pool:
        first = pool.submit(work.wait_for, str(gate))
        eventually(first.running, "the first call did not begin")
        with monkeypatch.context() as patch:
            patch.setattr(IsolateFuture, "begun", interrupted)
            with pytest.raises(KeyboardInterrupt):
                pool.submit(work.append_digest, str(ledger), data)
        others = [os.open(tmp_path, os.O_RDONLY) for _ in range(8)]  # the numbers of what is closed are given to others
        gate.touch()
        first.result(BOUND)
        pool.submit(abs, 1).result(BOUND)
        eventually(ledger.exists, "the call was not run")
        assert ledger.read_text().split() == [hashlib.sha256(data).hexdigest()]
        for fd in others:
            os.close(fd)


def test_a_forked_child_may_not_use_the_pool_and_does_not_disturb_it(pool: IsolatePool) -> None:
    future = pool.submit(time.sleep, 0.3)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        lines = []
        try:
            for use in (lambda: pool.submit(abs, 1), pool.stats, lambda: pool.resize(1), future.cancel, lambda: future.result(1)):
                try:
                    use()
                    lines.append("nothing")
                except RuntimeError as error:
                    lines.append(str(error).partition(":")[0])
            pool.shutdown()
            lines.append(repr(pool))
        except BaseException as error:
            lines.append(repr(error))
        os.write(writer, "\n".join(lines).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        lines = file.read().split("\n")
    os.waitpid(child, 0)
    assert lines == [f"this IsolatePool belongs to process {os.getpid()}"] * 5 + ["<IsolatePool of another process>"]
    assert future.result(BOUND) is None
    assert pool.submit(abs, -1).result(BOUND) == 1


def test_elsewhere_than_on_linux_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(RuntimeError, match="IsolatePool needs Linux"):
        IsolatePool(1)


def test_a_pool_stays_in_its_process(pool: IsolatePool) -> None:
    with pytest.raises(TypeError, match="stays in its process"):
        pool.submit(work.echo, pool).result(BOUND)


def test_what_functions_print_and_log_appears_here(capsys: pytest.CaptureFixture[str]) -> None:
    with IsolatePool(1, spares=0) as pool:
        pool.submit(work.print_text, "from far away").result(BOUND)
    assert capsys.readouterr() == ("from far away\n", "from far away\n")


def test_what_a_function_logs_is_logged_here_if_it_would_be_here(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with IsolatePool(1) as pool:
        pool.submit(work.log, "from far away").result(BOUND)
    assert [record.getMessage() for record in caplog.records if record.name == "users.own"] == ["info: from far away"]


# -- what functions print --------------------------------------------------------------------------------------------------------------


def test_all_that_a_function_prints_below_the_cap_comes_out_in_order() -> None:
    program = (
        "from tests.isolate import work\n"
        "from stem_iso import IsolatePool\n"
        "import sys\n"
        "with IsolatePool(1) as pool:\n"
        "    pool.submit(work.print_lines, 40_000).result(60)\n"
        "    print(pool.stats().dropped, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == [f"line {number}" for number in range(40_000)]
    assert done.stderr == "0\n"


def test_lines_that_a_stalled_terminal_does_not_take_are_counted_and_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stem_iso.isolate.pool.backend.OUTPUT", 100_000)
    stalled = StalledTerminal()
    with IsolatePool(1) as pool:
        monkeypatch.setattr(sys, "stdout", stalled)
        pool.submit(work.print_lines, 40_000).result(BOUND)
        eventually(lambda: pool.stats().dropped, "nothing was dropped")
        stalled.gate.set()
        dropped = pool.stats().dropped
    assert stalled.lines + dropped == 40_000
    assert f"{dropped} lines of output dropped" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("descriptors", [110, 150])
def test_where_descriptors_run_out_calls_run_in_the_isolates_there_are(descriptors: int, tmp_path: Path) -> None:
    program = (
        "import os, resource, sys\n"
        "from stem_iso import IsolatePool\n"
        "from tests.isolate import work\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors}, {descriptors}))\n"
        "with IsolatePool(40, spares=0) as pool:\n"
        f"    pids = {{future.result(60) for future in [pool.submit(work.pid_beside_others, {str(tmp_path)!r}, 2) for _ in range(80)]}}\n"
        "    before = len(os.listdir('/proc/self/fd'))\n"
        "    print(2 <= len(pids) < 40, before < resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=180)
    assert (done.returncode, done.stdout) == (0, "True True\n"), done.stderr
    assert done.stderr.count("no further process could be started") == 1, done.stderr


@pytest.mark.slow
def test_an_isolate_that_cannot_be_begun_leaves_no_descriptor() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = own_descriptors()
    for spare in range(12):
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + spare, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                Isolate(1, 0, 0.0, 1 << 20).leave_room()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert own_descriptors() == before


class StalledTerminal(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.lines = threading.Event(), 0

    def write(self, text: str) -> int:
        assert self.gate.wait(BOUND)
        self.lines += text.count("\n")
        return len(text)
