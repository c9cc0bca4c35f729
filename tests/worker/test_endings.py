"""How attempts end, and what is stored and emitted then: with real isolates and a real database."""

from __future__ import annotations

import pytest

from stem_iso import Stem, TaskFailed, WorkerEventType
from stem_iso.outcome import TaskState
from tests.worker import handlers
from tests.worker.conftest import Begin, QuickRetries


def test_a_task_that_returns_is_stored_and_reported_once(app: Stem, begin: Begin):
    add = app.task(name="add", isolate=True)(handlers.add)
    _, recorder = begin(app)
    handle = add.enqueue(2, b=3)
    assert handle.result(timeout=30) == 5
    event = recorder.wait(WorkerEventType.COMPLETED, handle.id)
    assert 0 <= event.elapsed < 10
    assert recorder.history(handle.id) == ["started", "completed"]
    status = handle.status()
    assert status.state is TaskState.SUCCEEDED and status.started_at <= status.finished_at


def test_a_task_that_raises_fails_with_its_own_traceback_and_leaves_a_dead_letter(app: Stem, begin: Begin):
    boom = app.task(name="boom", isolate=True)(handlers.boom)
    _, recorder = begin(app)
    handle = boom.enqueue("for a reason")
    with pytest.raises(TaskFailed) as failure:
        handle.result(timeout=30)
    assert failure.value.error.type == "ValueError" and failure.value.error.message == "for a reason"
    assert "handlers.py" in failure.value.error.traceback
    assert recorder.wait(WorkerEventType.FAILED, handle.id).reason == "error"
    assert [queue.dead for queue in app.open_broker().queues()] == [1]


def test_a_task_is_tried_again_with_a_growing_attempt_until_it_succeeds(app: Stem, begin: Begin):
    flaky = app.task(name="flaky", isolate=True, max_retries=5, retry_strategy=QuickRetries())(handlers.flaky)
    _, recorder = begin(app)
    handle = flaky.enqueue(until=3)
    assert handle.result(timeout=30) == 3
    recorder.wait(WorkerEventType.COMPLETED, handle.id)
    assert recorder.history(handle.id) == ["started", "retried"] * 3 + ["started", "completed"]
    assert [event.attempt for event in recorder.of(WorkerEventType.RETRIED, handle.id)] == [0, 1, 2]
    assert all(event.reason == "error" and event.error.type.endswith("Flakier") for event in recorder.of(WorkerEventType.RETRIED))


def test_an_error_of_an_isolate_is_matched_by_its_base_class(app: Stem, begin: Begin):
    retried = app.task(name="retried", isolate=True, max_retries=1, retry_for=handlers.Flaky, retry_strategy=QuickRetries())(handlers.flaky)
    refused = app.task(name="refused", isolate=True, max_retries=1, dont_retry_for=[handlers.Flaky])(handlers.flaky)
    _, recorder = begin(app)
    assert retried.enqueue(until=1).result(timeout=30) == 1
    handle = refused.enqueue(until=1)
    with pytest.raises(TaskFailed):
        handle.result(timeout=30)
    assert recorder.wait(WorkerEventType.FAILED, handle.id).reason == "not-retryable"


def test_a_handler_may_ask_for_its_own_retry(app: Stem, begin: Begin):
    ask = app.task(name="ask", isolate=True, max_retries=2)(handlers.ask_again)
    _, recorder = begin(app)
    handle = ask.enqueue(until=2)
    assert handle.result(timeout=30) == 2
    recorder.wait(WorkerEventType.COMPLETED, handle.id)
    assert [event.reason for event in recorder.of(WorkerEventType.RETRIED, handle.id)] == ["asked", "asked"]


def test_a_strategy_that_raises_is_reported_and_the_default_one_decides(app: Stem, begin: Begin):
    class Broken:
        def next_delay(self, attempt, error):
            raise RuntimeError("no idea")

    flaky = app.task(name="flaky", isolate=True, max_retries=1, retry_strategy=Broken())(handlers.flaky)
    _, recorder = begin(app)
    handle = flaky.enqueue(until=1)
    retried = recorder.wait(WorkerEventType.RETRIED, handle.id)
    assert 1.4 <= retried.delay <= 2.1
    assert "no idea" in recorder.wait(WorkerEventType.ERROR, handle.id).message


def test_the_strategy_of_the_worker_holds_where_the_options_name_none(app: Stem, begin: Begin):
    flaky = app.task(name="flaky", isolate=True, max_retries=1)(handlers.flaky)
    begin(app, retry_strategy=QuickRetries())
    assert flaky.enqueue(until=1).result(timeout=30) == 1


def test_a_crash_is_a_failure_with_the_signal_and_the_next_task_runs(app: Stem, begin: Begin):
    crash = app.task(name="crash", isolate=True)(handlers.crash)
    leave = app.task(name="leave", isolate=True)(handlers.leave)
    add = app.task(name="add", isolate=True)(handlers.add)
    begin(app)
    with pytest.raises(TaskFailed) as failure:
        crash.enqueue().result(timeout=30)
    assert failure.value.error.signal == "SIGSEGV"
    with pytest.raises(TaskFailed) as failure:
        leave.enqueue(0).result(timeout=30)
    assert failure.value.error.exit_code == 0
    assert add.enqueue(1).result(timeout=30) == 2


def test_a_crash_is_tried_again_where_attempts_are_left(app: Stem, begin: Begin):
    crash = app.task(name="crash", isolate=True, max_retries=1, retry_strategy=QuickRetries())(handlers.crash)
    _, recorder = begin(app)
    handle = crash.enqueue()
    with pytest.raises(TaskFailed):
        handle.result(timeout=30)
    recorder.wait(WorkerEventType.FAILED, handle.id)
    assert recorder.history(handle.id) == ["started", "retried", "started", "failed"]


def test_a_result_that_is_too_large_fails_once_and_says_so(tmp_path, begin: Begin):
    app = Stem(broker=f"sqlite:///{tmp_path}/small.db", max_result_bytes=1000)
    isolated = app.task(name="isolated", isolate=True, max_retries=3)(handlers.huge)
    inline = app.task(name="inline", max_retries=3)(handlers.huge)
    _, recorder = begin(app)
    for task in (isolated, inline):
        handle = task.enqueue(2000)
        with pytest.raises(TaskFailed) as failure:
            handle.result(timeout=30)
        assert "max_result_bytes" in failure.value.error.message
        recorder.wait(WorkerEventType.FAILED, handle.id)
        assert recorder.history(handle.id) == ["started", "failed"]


def test_meta_is_carried_to_the_next_attempt_and_into_the_status(app: Stem, begin: Begin):
    remember = app.task(name="remember", isolate=True, max_retries=2, retry_strategy=QuickRetries())(handlers.remember)
    begin(app)
    handle = remember.using(meta={"by": "test"}).enqueue(until=2)
    assert handle.result(timeout=30) == {"by": "test", "seen": [0, 1, 2]}
    assert handle.status().meta == {"by": "test", "seen": [0, 1, 2]}


def test_two_hundred_tasks_of_every_kind_end_once_each(app: Stem, begin: Begin):
    add = app.task(name="add", isolate=True)(handlers.add)
    inline = app.task(name="inline")(handlers.add)
    flaky = app.task(name="flaky", isolate=True, max_retries=1, retry_strategy=QuickRetries())(handlers.flaky)
    _, recorder = begin(app, concurrency=2)
    handles = app.enqueue_many([add.s(n) for n in range(100)] + [inline.s(n) for n in range(80)] + [flaky.s(until=1) for _ in range(20)])
    assert [handle.result(timeout=60) for handle in handles] == [*range(1, 101), *range(1, 81), *[1] * 20]
    recorder.wait(WorkerEventType.COMPLETED, count=200)
    for handle in handles:
        assert recorder.history(handle.id).count("completed") == 1
