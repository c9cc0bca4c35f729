"""What CPython's own tests ask of an executor, asked of `IsolatePool`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import itertools
import operator
import select
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, CancelledError, InvalidStateError, as_completed, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from stem_iso import IsolatePool, RemoteError
from stem_iso.isolate.machine import allowed_cores
from tests.isolate import work
from tests.isolate.calling import BOUND, eventually


@pytest.fixture(scope="module")
def pool() -> Iterator[IsolatePool]:
    with IsolatePool(2) as made:
        yield made


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Calls of `wait_for` wait until somebody touches it."""
    return tmp_path / "gate"


def test_a_submitted_call_returns_its_value(pool: IsolatePool) -> None:
    assert isinstance(pool, concurrent.futures.Executor)
    future = pool.submit(pow, 2, 8)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(BOUND) == 256
    assert future.result() == 256
    assert future.exception() is None
    assert future.done() and not future.running() and not future.cancelled()


def test_arguments_may_be_called_anything(pool: IsolatePool) -> None:
    assert pool.submit(work.keywords, 1, self="s", fn="f", timeout=3).result(BOUND) == ((1,), {"self": "s", "fn": "f", "timeout": 3})


def test_what_is_submitted_last_before_shutdown_is_run(tmp_path: Path) -> None:
    pool = IsolatePool(1, spares=0)
    futures = [pool.submit(work.append, str(tmp_path / "ledger"), str(number)) for number in range(5)]
    pool.shutdown()
    assert all(future.done() for future in futures)
    assert (tmp_path / "ledger").read_text().split() == ["0", "1", "2", "3", "4"]


def test_a_shutdown_in_the_midst_of_submissions_waits_for_all_that_was_taken(pool: IsolatePool) -> None:
    """Many views of one pool, since a view is shut as the pool is and costs nothing."""

    def shut(view: Any, start: threading.Barrier) -> None:
        start.wait(BOUND)
        view.shutdown()

    def submit(view: Any, start: threading.Barrier, futures: list[Any]) -> None:
        start.wait(BOUND)
        with suppress(RuntimeError):
            for _ in range(5):
                futures.append(view.submit(work.echo, 1))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(50):
            view, start, futures = pool.with_limits(hard=60), threading.Barrier(4), list[Any]()
            threads = [threading.Thread(target=shut, args=(view, start))]
            threads += [threading.Thread(target=submit, args=(view, start, futures)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(BOUND)
            assert all(future.done() for future in futures)
    finally:
        sys.setswitchinterval(before)


def test_nothing_is_taken_after_shutdown() -> None:
    pool = IsolatePool(1, spares=0)
    pool.shutdown()
    pool.shutdown()
    for late in (lambda: pool.submit(pow, 2, 5), lambda: pool.map(abs, [1])):
        with pytest.raises(RuntimeError, match="after shutdown"):
            late()
    assert repr(pool) == "<IsolatePool shut down>"


def test_shutdown_without_waiting_returns_at_once_and_the_calls_end(gate: Path) -> None:
    pool = IsolatePool(1, spares=0)
    futures = [pool.submit(work.wait_for, str(gate), number) for number in range(3)]
    pool.shutdown(wait=False)
    assert not futures[0].done()
    gate.touch()
    assert [future.result(BOUND) for future in futures] == [0, 1, 2]


def test_shutdown_can_cancel_what_has_not_begun(gate: Path) -> None:
    pool = IsolatePool(1, spares=0)
    first = pool.submit(work.wait_for, str(gate), 1)
    eventually(first.running, "it did not begin")
    rest = [pool.submit(work.echo, number) for number in range(2000)]
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in rest)
    assert not first.done()
    gate.touch()
    assert first.result(BOUND) == 1
    pool.shutdown()


def test_a_pool_that_is_forgotten_finishes_its_calls_and_ends(gate: Path) -> None:
    before = threading.active_count()
    pool = IsolatePool(1, spares=0)
    future = pool.submit(work.wait_for, str(gate), 5)
    del pool
    gc.collect()
    gate.touch()
    assert future.result(BOUND) == 5
    eventually(lambda: threading.active_count() <= before, "its threads go on")


def test_shutdown_from_a_callback_does_not_hang() -> None:
    pool, shut = IsolatePool(1, spares=0), threading.Event()

    def end(future: object) -> None:
        pool.shutdown()
        shut.set()

    pool.submit(abs, 1).add_done_callback(end)
    assert shut.wait(BOUND)


# -- map -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_map_keeps_the_order_and_ends_with_the_shortest(pool: IsolatePool, chunksize: int) -> None:
    assert list(pool.map(pow, range(10), range(12), chunksize=chunksize)) == list(map(pow, range(10), range(10)))
    assert list(pool.map(pow, [], [], chunksize=chunksize)) == []


@pytest.mark.parametrize("chunksize", [1, 2, 4])
def test_map_raises_where_the_result_is_asked_for_and_goes_on(pool: IsolatePool, chunksize: int) -> None:
    results = pool.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5], chunksize=chunksize)
    assert next(results) == (0, 1)
    assert next(results) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == [(0, 1)]


def test_map_with_a_timeout_raises_and_cancels(pool: IsolatePool, gate: Path) -> None:
    results = pool.map(work.wait_for, [str(gate)] * 3, timeout=0.1)
    with pytest.raises(TimeoutError):
        next(results)
    assert list(results) == []
    assert pool.submit(abs, -1).result(BOUND) == 1, "the isolates were killed, and others serve"


def test_map_takes_from_an_endless_input_what_its_window_holds(pool: IsolatePool) -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        for number in itertools.count():
            taken.append(number)
            yield number

    results = pool.map(operator.neg, endless(), buffersize=5)
    assert len(taken) == 5
    assert list(itertools.islice(results, 20)) == [-number for number in range(20)]
    assert len(taken) <= 25


def test_an_input_that_raises_is_raised_behind_the_results_before_it(pool: IsolatePool) -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the input broke")

    results = pool.map(abs, broken())
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(OSError, match="the input broke"):
        next(results)
    assert list(results) == []


def asked_of(results: Iterator[Any]) -> list[Any]:
    """What `next` gives, or the type of what it raises, to the end."""
    found: list[Any] = []
    while len(found) < 1000:
        try:
            found.append(next(results))
        except StopIteration:
            return found
        except Exception as error:
            found.append(type(error))
    pytest.fail("it has no end")


@pytest.mark.parametrize("chunksize", [1, 4])
def test_a_map_behind_the_end_of_its_pool_gives_what_was_submitted_then_says_once_that_it_is_shut(chunksize: int) -> None:
    numbers = iter(range(100))
    with IsolatePool(1, spares=0) as pool:
        results = pool.map(abs, numbers, chunksize=chunksize, buffersize=4)
        whole = pool.map(abs, range(4 * chunksize), chunksize=chunksize, buffersize=4)
    submitted = 4 * chunksize
    assert asked_of(results) == [*range(submitted), RuntimeError]
    assert next(numbers) == submitted, "an item was taken that nobody submitted"
    assert asked_of(whole) == list(range(submitted)), "nothing was refused"
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.map(abs, [1])


def test_a_map_whose_calls_were_cancelled_says_so_once_for_each_and_ends(gate: Path) -> None:
    pool = IsolatePool(1, spares=0)
    results = pool.map(work.wait_for, [str(gate)] * 4, [7] * 4)
    pool.shutdown(wait=False, cancel_futures=True)
    gate.touch()
    found = asked_of(results)
    assert len(found) == 4 and set(found[1:]) == {CancelledError}
    pool.shutdown()


def test_leaving_the_loop_cancels_the_rest(tmp_path: Path) -> None:
    ledger, gate = tmp_path / "ledger", tmp_path / "gate"
    with IsolatePool(1, spares=0) as pool:
        paths = itertools.repeat(str(ledger)), itertools.repeat(str(gate))
        for _ in pool.map(work.append_and_wait, *paths, map(str, range(10_000)), buffersize=50):
            break
        gate.touch()
        with pytest.raises(ZeroDivisionError):
            sum(map(len, pool.map(divmod, itertools.repeat(1), itertools.chain([1, 0], itertools.repeat(1)))))
        eventually(lambda: pool.stats().waiting == 0, "calls still wait")
    assert ledger.read_text().split() in (["0"], ["0", "1"])  # the second may have begun


@pytest.mark.parametrize("wrong", [{"chunksize": 0}, {"chunksize": -1}, {"buffersize": 0}])
def test_map_refuses_sizes_that_mean_nothing(pool: IsolatePool, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        pool.map(abs, [1], **wrong)  # type: ignore[arg-type]


# -- waiting ---------------------------------------------------------------------------------------------------------------------------


def test_result_and_exception_have_a_timeout(pool: IsolatePool, gate: Path) -> None:
    future = pool.submit(work.wait_for, str(gate))
    for read in (future.result, future.exception):
        with pytest.raises(TimeoutError):
            read(timeout=0.01)
        with pytest.raises(TimeoutError):
            read(timeout=0)
    gate.touch()
    assert future.result(BOUND) is None


def test_wait_returns_at_the_first_the_first_failure_or_at_the_end(pool: IsolatePool, gate: Path) -> None:
    held, quick = pool.submit(work.wait_for, str(gate)), pool.submit(abs, 1)
    done, left = wait([held, quick], BOUND, FIRST_COMPLETED)
    assert (done, left) == ({quick}, {held})
    failing = pool.submit(work.fail, 1)
    done, left = wait([held, failing], BOUND, FIRST_EXCEPTION)
    assert (done, left) == ({failing}, {held})
    assert wait([held, quick], 0.01, ALL_COMPLETED) == ({quick}, {held})
    gate.touch()
    assert wait([held, quick, failing], BOUND) == ({held, quick, failing}, set())
    assert wait([held, quick, failing], BOUND, FIRST_EXCEPTION)[1] == set()


def test_wait_sees_a_cancelled_one(pool: IsolatePool, gate: Path) -> None:
    held = pool.submit(work.wait_for, str(gate))
    threading.Timer(0.05, held.cancel).start()
    assert wait([held], BOUND) == ({held}, set())
    assert held.cancelled()


def test_as_completed_yields_each_once_as_it_comes(pool: IsolatePool, gate: Path) -> None:
    held = pool.submit(work.wait_for, str(gate))
    others = [pool.submit(work.double, number) for number in range(20)]
    order = []
    for future in as_completed([held, *others, *others], BOUND):
        order.append(future)
        if len(order) == 20:
            gate.touch()
    assert order[-1] is held
    assert sorted(map(id, order)) == sorted(map(id, [held, *others]))
    gone = pool.submit(work.wait_for, str(gate) + "never")
    with pytest.raises(TimeoutError):
        list(as_completed([held, gone], 0.01))
    gone.cancel()


# -- callbacks -------------------------------------------------------------------------------------------------------------------------


def test_callbacks_are_called_once_each_and_one_that_raises_harms_nobody(
    pool: IsolatePool, gate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    future, called, done = pool.submit(work.wait_for, str(gate), 7), [], threading.Event()

    def raising(future: Any) -> None:
        called.append("raising")
        raise RuntimeError("a callback of mine")

    future.add_done_callback(raising)
    future.add_done_callback(lambda future: called.append(future.result()))
    future.add_done_callback(lambda future: done.set())
    gate.touch()
    assert done.wait(BOUND)
    assert called == ["raising", 7]
    assert "a callback of mine" in caplog.text
    future.add_done_callback(lambda future: called.append("late, and at once"))
    assert called[-1] == "late, and at once"
    future.add_done_callback(raising)


def test_a_callback_that_lets_the_calls_own_system_exit_through_stops_no_later_one(pool: IsolatePool, gate: Path) -> None:
    seen: list[object] = []
    leaves, later = pool.submit(work.wait_for_and_exit, str(gate)), pool.submit(work.wait_for, str(gate))
    leaves.add_done_callback(lambda future: future.result())
    leaves.add_done_callback(seen.append)
    later.add_done_callback(seen.append)
    gate.touch()
    eventually(lambda: set(seen) == {leaves, later}, "a later callback did not run", 5.0)

    def interrupted(future: object) -> None:
        raise KeyboardInterrupt

    later.result(BOUND)
    with pytest.raises(KeyboardInterrupt):  # it is settled, so this is our own thread: here Ctrl-C is the program's
        later.add_done_callback(interrupted)


def test_a_cancelled_future_calls_back(pool: IsolatePool, gate: Path) -> None:
    future, cancelled = pool.submit(work.wait_for, str(gate)), threading.Event()
    future.add_done_callback(lambda future: cancelled.set() if future.cancelled() else None)
    assert future.cancel()
    assert cancelled.wait(BOUND)


def test_no_reference_to_arguments_results_or_errors_is_kept(pool: IsolatePool) -> None:
    class Argument:
        """Of the test's function: it travels by value."""

    argument = Argument()
    watched = weakref.ref(argument)
    future = pool.submit(work.echo, argument)
    del argument
    gc.collect()
    assert watched() is None, "the pool keeps the argument itself"
    result = weakref.ref(future.result(BOUND))
    assert isinstance(result(), Argument), "the class came back as the one that it is here"
    failing = pool.submit(work.raise_plain)
    error = weakref.ref(failing.exception(BOUND) or pytest.fail("no error"))
    with pytest.raises(work.Plain):
        failing.result()
    future = failing = None  # type: ignore[assignment]
    gc.collect()
    assert result() is None
    assert error() is None


def test_a_payload_is_let_go_with_its_call(pool: IsolatePool) -> None:
    future = pool.submit(work.double, b"x" * 100_000)
    future.result(BOUND)
    eventually(lambda: future.call is None, "the call, and with it the payload, is kept")


# -- cancelling ------------------------------------------------------------------------------------------------------------------------


def test_a_waiting_call_that_is_cancelled_never_runs(tmp_path: Path, gate: Path) -> None:
    with IsolatePool(1, spares=0) as pool:
        first = pool.submit(work.wait_for, str(gate))
        waiting = [pool.submit(work.append, str(tmp_path / "ledger"), str(number)) for number in range(2000)]
        assert all(future.cancel() for future in waiting[1::2])
        gate.touch()
        assert first.result(BOUND) is None
        assert waiting[-2].result(BOUND) is None
        assert waiting[1].cancel(), "once more says the same"
        with pytest.raises(CancelledError):
            waiting[1].result()
        with pytest.raises(CancelledError):
            waiting[1].exception()
    assert (tmp_path / "ledger").read_text().split() == [str(number) for number in range(0, 2000, 2)]


def test_a_call_that_is_cancelled_while_its_isolate_becomes_free_never_runs(tmp_path: Path, gate: Path) -> None:
    with IsolatePool(1, spares=0) as pool:
        first = pool.submit(work.wait_for, str(gate))
        eventually(first.running, "it did not begin")
        waiting = [pool.submit(work.append, str(tmp_path / "ledger"), str(number)) for number in range(1500)]
        engine = pool._backend.engine
        with engine._lock:  # the engine sees the reply, and behind it the wish to cancel
            (isolate,) = engine._isolates.by_number.values()
            gate.touch()
            assert select.select([isolate.pipe.link], [], [], BOUND)[0]
            assert all(future.cancel() for future in waiting[:-1])
        assert waiting[-1].result(BOUND) is None
    assert (tmp_path / "ledger").read_text().split() == ["1499"]


def test_a_running_call_that_is_cancelled_is_killed_and_settled_at_once(pool: IsolatePool, tmp_path: Path) -> None:
    from tests.isolate.calling import assert_dead, pid_in

    future = pool.submit(work.write_pid_and_spin, str(tmp_path / "pid"))
    victim = pid_in(tmp_path / "pid")
    assert future.running() and not future.done()
    assert future.cancel()
    assert future.cancelled() and future.done() and not future.running()
    assert_dead(victim, within=BOUND)
    assert pool.submit(abs, -3).result(BOUND) == 3


def test_a_finished_call_cannot_be_cancelled(pool: IsolatePool) -> None:
    future = pool.submit(abs, -3)
    assert future.result(BOUND) == 3
    assert not future.cancel()
    assert not future.cancelled()


def test_a_future_of_a_pool_is_settled_by_the_pool_alone(pool: IsolatePool) -> None:
    future = pool.submit(abs, -3)
    for meddle in (lambda: future.set_result(4), lambda: future.set_exception(OSError()), future.set_running_or_notify_cancel):
        with pytest.raises(InvalidStateError):
            meddle()
    assert future.result(BOUND) == 3


# -- workers ---------------------------------------------------------------------------------------------------------------------------


def test_an_idle_isolate_is_used_again_before_another_is_started() -> None:
    with IsolatePool(8, spares=0) as pool:
        assert len({pool.submit(work.pid).result(BOUND) for _ in range(20)}) == 1
        assert repr(pool) == "<IsolatePool 1 idle, 0 busy, 0 spare | 0 waiting>"


@pytest.mark.parametrize("wrong", [0, -1])
def test_max_workers_must_be_above_zero(wrong: int) -> None:
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        IsolatePool(wrong)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"max_workers": 1.5}, TypeError),
        ({"max_workers": True}, TypeError),
        ({"max_workers": 5000}, ValueError),
        ({"spares": -1}, ValueError),
        ({"initializer": "no"}, TypeError),
        ({"initializer": work.echo, "initargs": (threading.Lock(),)}, TypeError),
        ({"preload": "numpy"}, TypeError),
        ({"secrets": [3]}, TypeError),
        ({"max_tasks_per_isolate": 0}, ValueError),
        ({"max_memory_per_isolate": "lots"}, ValueError),
        ({"boot_time_limit": 0}, ValueError),
    ],
)
def test_options_that_cannot_be_meant_are_refused_at_birth(wrong: dict[str, Any], error: type[Exception]) -> None:
    before = threading.active_count()
    with pytest.raises(error):
        IsolatePool(**wrong)
    assert threading.active_count() == before


def test_by_default_there_is_a_seat_for_each_allowed_core() -> None:
    pool = IsolatePool(spares=0)
    assert pool._backend.size == allowed_cores()
    pool.shutdown()


@pytest.mark.parametrize(
    ("function", "expected"), [(work.nested, 42), (work.with_subprocess, "4\n"), (work.with_multiprocessing, [2, 4, 6])]
)
def test_a_call_may_have_processes_of_its_own(pool: IsolatePool, function: Any, expected: Any) -> None:
    args = (21,) if function is work.nested else ()
    assert pool.submit(function, *args).result(BOUND) == expected


# -- asyncio ---------------------------------------------------------------------------------------------------------------------------


def test_asyncio_runs_calls_in_it(pool: IsolatePool) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        direct = loop.run_in_executor(pool, work.double, 2)
        wrapped = asyncio.wrap_future(pool.submit(work.double, 3))
        return [await direct, await wrapped, *await asyncio.gather(*(pool.run(work.double, number) for number in range(50)))]

    assert asyncio.run(main()) == [4, 6, *range(0, 100, 2)]


def test_an_awaited_failure_is_raised_in_the_loop(pool: IsolatePool) -> None:
    async def main() -> None:
        await pool.run(work.fail, "there")

    with pytest.raises(ValueError, match="there"):
        asyncio.run(main())


@pytest.mark.parametrize("through_executor", [False, True])
def test_cancelling_the_await_kills_the_call(pool: IsolatePool, tmp_path: Path, through_executor: bool) -> None:
    from tests.isolate.calling import assert_dead, pid_in

    async def main() -> int:
        ledger = str(tmp_path / "pid")
        loop = asyncio.get_running_loop()
        if through_executor:
            running: asyncio.Future[Any] = loop.run_in_executor(pool, work.write_pid_and_spin, ledger)
        else:
            running = asyncio.ensure_future(pool.run(work.write_pid_and_spin, ledger))
        victim = await loop.run_in_executor(None, pid_in, tmp_path / "pid")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return victim

    assert_dead(asyncio.run(main()), within=BOUND)


def test_names_that_no_encoder_takes_or_that_never_end_are_cut_and_replaced(pool: IsolatePool) -> None:
    def fail(name: str) -> None:
        error = type("Unpicklable", (ValueError,), {"__reduce__": lambda self: 1 / 0})
        error.__qualname__ = name
        found = error(name)
        found.add_note(name)
        raise found

    fail.__qualname__ = "caf\udce9"  # which titles its process
    odd, endless = pool.submit(fail, "caf\udce9").exception(BOUND), pool.submit(fail, "E" * 300_000).exception(BOUND)
    assert isinstance(odd, RemoteError) and odd.type.endswith("caf?") and odd.message == "caf?"
    assert isinstance(endless, RemoteError) and len(endless.type) < 70_000 and len(endless.__notes__[0]) < 70_000
    assert pool.submit(pow, 2, 8).result(BOUND) == 256


# -- a function that lets a StopIteration out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [1, 2, 5])
def test_a_stop_iteration_does_not_pass_for_the_end_of_a_map(pool: IsolatePool, chunksize: int) -> None:
    results, found = pool.map(work.first_word, ["a b", "c", "", "d e", "f"], chunksize=chunksize), []
    found += [next(results), next(results)]
    with pytest.raises(RuntimeError, match="StopIteration") as caught:
        next(results)
    assert isinstance(caught.value.__cause__, StopIteration)
    assert [*found, *results] == ["a", "c", "d", "f"], "and the iterator goes on behind it, as behind any failure"


def test_a_stop_iteration_ends_a_wait_in_a_loop_with_an_error(pool: IsolatePool) -> None:
    async def wait(how: str) -> None:
        loop = asyncio.get_running_loop()
        match how:
            case "run":
                await pool.run(work.first_word, "")
            case "wrapped":
                await asyncio.wrap_future(pool.submit(work.first_word, ""))
            case "executor":
                await loop.run_in_executor(pool, work.first_word, "")
            case "settled":
                future = pool.submit(work.first_word, "")
                future.exception(BOUND)
                await asyncio.wrap_future(future)

    for how in ("run", "wrapped", "executor", "settled"):
        with pytest.raises(RuntimeError, match="StopIteration"):
            asyncio.run(asyncio.wait_for(wait(how), BOUND))


def test_a_future_keeps_the_stop_iteration_that_it_holds(pool: IsolatePool) -> None:
    received: list[BaseException | None] = []
    future = pool.submit(work.first_word, "")
    future.add_done_callback(lambda done: received.append(done.exception()))
    assert isinstance(future.exception(BOUND), StopIteration)
    with pytest.raises(StopIteration):
        future.result(BOUND)
    eventually(lambda: received, "the callback did not run")
    assert isinstance(received[0], StopIteration)
