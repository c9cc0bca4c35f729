"""Handlers that run in the worker's own process: what can be enforced on them, and what is said where it cannot."""

from __future__ import annotations

import asyncio
import threading

import pytest

from stem_iso import Stem, TaskFailed, Worker, WorkerEventType
from stem_iso.testing import eventually
from tests.worker import handlers
from tests.worker.conftest import Begin, EventRecorder


def test_the_context_is_the_same_in_an_isolate_in_a_thread_and_on_a_loop(app: Stem, begin: Begin):
    tasks = {
        "isolated": app.task(name="isolated", isolate=True)(handlers.look),
        "sync": app.task(name="sync")(handlers.look),
        "async": app.task(name="async")(handlers.look_async),
        "isolated async": app.task(name="isolated async", isolate=True)(handlers.look_async),
    }
    begin(app)
    seen = {}
    for kind, task in tasks.items():
        handle = task.using(headers={"h": 1}, meta={"m": 2}, max_retries=7).enqueue()
        seen[kind] = handle.result(timeout=30)
        assert seen[kind].pop("id") == handle.id and seen[kind].pop("name") == task.name
        assert seen[kind].pop("isolated") == kind.startswith("isolated")
    assert seen["isolated"] == seen["sync"] == seen["async"] == seen["isolated async"]
    assert seen["sync"]["headers"] == {"h": 1} and seen["sync"]["max_retries"] == 7


def test_seats_are_counted_inline_and_isolated_together(app: Stem, begin: Begin, tmp_path):
    inline = app.task(name="inline")(handlers.say_and_wait)
    isolated = app.task(name="isolated", isolate=True)(handlers.say_and_wait)
    _, recorder = begin(app, concurrency=2)
    handles = [task.enqueue(str(tmp_path / "gate")) for task in (inline, isolated, inline)]
    recorder.wait(WorkerEventType.PROGRESS, handles[0].id)
    recorder.wait(WorkerEventType.PROGRESS, handles[1].id)
    assert app.open_broker().queues()[0].queued == 1
    (tmp_path / "gate").touch()
    assert [handle.result(timeout=30) for handle in handles] == ["done"] * 3


def test_the_soft_limit_of_a_thread_is_reported_with_its_stack(app: Stem, begin: Begin, tmp_path):
    wait = app.task(name="wait", soft_time_limit=0.1)(handlers.say_and_wait)
    _, recorder = begin(app)
    handle = wait.enqueue(str(tmp_path / "gate"))
    event = recorder.wait(WorkerEventType.TIMEOUT, handle.id)
    assert event.level == "soft" and "wait_for" in event.stack
    (tmp_path / "gate").touch()
    assert handle.result(timeout=30) == "done"
    recorder.wait(WorkerEventType.COMPLETED, handle.id)
    assert len(recorder.of(WorkerEventType.TIMEOUT, handle.id)) == 1


def test_the_hard_limit_of_a_coroutine_cancels_it_and_is_reported_when_it_has_ended(app: Stem, begin: Begin):
    sleep = app.task(name="sleep", soft_time_limit=0.05, hard_time_limit=0.2)(handlers.sleep_async)
    _, recorder = begin(app)
    handle = sleep.enqueue()
    recorder.wait(WorkerEventType.FAILED, handle.id)
    assert recorder.history(handle.id) == ["started", "progress", "timeout", "timeout", "failed"]
    soft, hard = recorder.of(WorkerEventType.TIMEOUT, handle.id)
    assert "sleep_async" in soft.stack and "sleep_async" in hard.stack
    assert hard.level == "hard" and hard.elapsed >= 0.2
    assert handle.status().error.type == "stem_iso.errors.TimeoutException"


def test_a_coroutine_that_swallows_the_cancellation_has_timed_out_all_the_same(app: Stem, begin: Begin):
    swallow = app.task(name="swallow", hard_time_limit=0.2)(handlers.swallow_async)
    begin(app)
    with pytest.raises(TaskFailed) as failure:
        swallow.enqueue().result(timeout=30)
    assert failure.value.error.type == "stem_iso.errors.TimeoutException"


def test_the_soft_limit_leaves_a_coroutine_as_its_own_error_where_it_is_to_be_raised(app: Stem, begin: Begin):
    soft = app.task(name="soft", soft_time_limit=0.1, soft_limit_action="raise")(handlers.soft_async)
    _, recorder = begin(app)
    handle = soft.enqueue()
    with pytest.raises(TaskFailed) as failure:
        handle.result(timeout=30)
    assert failure.value.error.type == "stem_iso.errors.SoftTimeLimitExceeded"
    recorder.wait(WorkerEventType.FAILED, handle.id)
    assert [event.level for event in recorder.of(WorkerEventType.TIMEOUT, handle.id)] == ["soft"]


def test_a_silent_coroutine_is_ended_as_by_a_hard_limit(app: Stem, begin: Begin):
    sleep = app.task(name="sleep", heartbeat_timeout=0.2)(handlers.sleep_async)
    begin(app)
    with pytest.raises(TaskFailed) as failure:
        sleep.enqueue().result(timeout=30)
    assert "silent" in failure.value.error.message


def test_the_times_of_a_silent_coroutine_count_from_the_limit_of_its_silence(app: Stem, begin: Begin):
    beat = app.task(name="beat", heartbeat_timeout=1)(handlers.beat_once_async)
    _, recorder = begin(app)
    hard = recorder.wait(WorkerEventType.TIMEOUT, beat.enqueue(0.3).id)
    assert (hard.level, hard.silent, hard.limit) == ("hard", True, 1)
    assert hard.elapsed >= 1.3
    assert 0 <= hard.signalled_at <= hard.dead_at <= hard.elapsed - 1.3


@pytest.mark.repeat
def test_a_coroutine_whose_limit_passed_before_its_first_step_ends(app: Stem, begin: Begin, tmp_path):
    hold = app.task(name="hold")(handlers.hold_the_loop)
    sleep = app.task(name="sleep", hard_time_limit=0.2)(handlers.sleep_async)
    last = app.task(name="last", soft_time_limit=0.4)(handlers.loop_name)
    _, recorder = begin(app, concurrency=3)
    gate = tmp_path / "gate"
    holding = hold.enqueue(str(gate))
    recorder.wait(WorkerEventType.PROGRESS, holding.id)
    limited, after = sleep.enqueue(), last.enqueue()
    recorder.wait(WorkerEventType.TIMEOUT, after.id)  # by now the other one's limit has passed as well
    gate.touch()
    with pytest.raises(TaskFailed) as failure:
        limited.result(timeout=30)
    assert "hard time limit of 0.2 s" in failure.value.error.message
    assert (holding.result(timeout=30), after.result(timeout=30)) == ("done", "stem-iso-loop")


def test_terminate_cancels_a_coroutine(app: Stem, begin: Begin):
    sleep = app.task(name="sleep")(handlers.sleep_async)
    _, recorder = begin(app)
    handle = sleep.enqueue()
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    handle.revoke(terminate=True)
    assert recorder.wait(WorkerEventType.REVOKED, handle.id, within=5).reason == "revoked"


def test_a_coroutine_is_given_back_at_shutdown(app: Stem, begin: Begin):
    sleep = app.task(name="sleep")(handlers.sleep_async)
    worker, recorder = begin(app, shutdown_timeout=0.1)
    handle = sleep.enqueue()
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    worker.stop()
    worker.join(20)
    assert handle.status().state.value == "queued" and handle.status().attempt == 0


@pytest.mark.slow
def test_a_thread_that_cannot_be_ended_does_not_hold_up_the_end_and_its_lease_is_left(app: Stem, begin: Begin, tmp_path):
    wait = app.task(name="wait")(handlers.say_and_wait)
    worker, recorder = begin(app)
    handle = wait.enqueue(str(tmp_path / "gate"))
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    worker.stop(at_once=True)
    worker.join(20)
    assert "cannot end it" in recorder.of(WorkerEventType.ERROR, handle.id)[0].message
    assert handle.status().state.value == "running"
    (tmp_path / "gate").touch()


def test_a_worker_of_inline_handlers_alone_starts_no_process(app: Stem, begin: Begin):
    add = app.task(name="add")(handlers.add)
    _, recorder = begin(app)
    assert add.enqueue(1).result(timeout=30) == 2
    recorder.wait(WorkerEventType.COMPLETED)
    assert recorder.of(WorkerEventType.ISOLATE) == []


@pytest.mark.slow
def test_c_code_that_keeps_the_gil_is_named_where_it_endangers_the_lease(app: Stem, begin: Begin):
    hold = app.task(name="hold", visibility_timeout=0.6)(handlers.hold_gil_inline)
    _, recorder = begin(app)
    handle = hold.enqueue(0.7)
    message = recorder.wait(WorkerEventType.ERROR, handle.id, within=60).message
    assert "'hold'" in message and "isolated" in message


def test_served_in_a_loop_coroutines_run_on_it_and_cancelling_drains(app: Stem, tmp_path):
    name = app.task(name="name")(handlers.loop_name)
    wait = app.task(name="wait", isolate=True)(handlers.say_and_wait)

    async def main() -> None:
        worker = Worker(app, concurrency=2)
        recorder = EventRecorder(worker)
        serving = asyncio.create_task(worker.serve())
        assert await (await name.aenqueue()).aresult(timeout=30) == threading.current_thread().name
        handle = await wait.aenqueue(str(tmp_path / "gate"))
        await asyncio.to_thread(recorder.wait, WorkerEventType.PROGRESS, handle.id)
        serving.cancel()
        (tmp_path / "gate").touch()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert handle.status().state.value == "succeeded"

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_second_cancellation_of_serve_ends_at_once(app: Stem):
    spin = app.task(name="spin", isolate=True)(handlers.say_and_spin)

    async def main() -> None:
        worker = Worker(app, concurrency=1, shutdown_timeout=600)
        recorder = EventRecorder(worker)
        serving = asyncio.create_task(worker.serve())
        handle = await spin.aenqueue()
        await asyncio.to_thread(recorder.wait, WorkerEventType.PROGRESS, handle.id)
        serving.cancel()
        await asyncio.sleep(0)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert handle.status().state.value == "queued"

    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.slow
def test_nothing_of_a_finished_inline_call_is_kept(app: Stem, begin: Begin):
    import gc

    from stem_iso.worker.attempt import Attempt

    add = app.task(name="add", soft_time_limit=600)(handlers.add)
    begin(app)
    for number in range(50):
        assert add.enqueue(number).result(timeout=30) == number + 1
    eventually(lambda: gc.collect() is not None and sum(isinstance(each, Attempt) for each in gc.get_objects()) <= 2)
