"""Limits as the queue sees them: one soft event with a stack, one hard event after the death, then the policy."""

from __future__ import annotations

import os

import pytest

from stem_iso import Stem, TaskFailed, WorkerEventType
from stem_iso.outcome import TaskState
from tests.worker import handlers
from tests.worker.conftest import Begin, QuickRetries, alive


def test_the_soft_limit_is_reported_once_with_the_stack_of_the_handler(app: Stem, begin: Begin):
    add = app.task(name="add", isolate=True)(handlers.add)
    spin = app.task(name="spin", isolate=True, soft_time_limit=0.2, hard_time_limit=0.8)(handlers.spin)
    _, recorder = begin(app, spares=0)
    assert add.enqueue(1, 2).result(timeout=30) == 3  # the one isolate has imported the handlers now, which else is what the stack shows
    handle = spin.enqueue()
    recorder.wait(WorkerEventType.FAILED, handle.id)
    assert recorder.history(handle.id) == ["started", "timeout", "timeout", "failed"]
    soft, hard = recorder.of(WorkerEventType.TIMEOUT, handle.id)
    assert (soft.level, soft.limit) == ("soft", 0.2) and soft.elapsed >= 0.2
    assert "in spin" in soft.stack
    assert (hard.level, hard.limit) == ("hard", 0.8) and hard.elapsed >= 0.8
    assert hard.killed and hard.dead_at >= hard.signalled_at >= 0


def test_a_time_out_is_stored_with_the_stack_and_the_error_that_people_know(app: Stem, begin: Begin):
    stuck = app.task(name="stuck", isolate=True, hard_time_limit=0.8)(handlers.hold_the_gil)
    begin(app)
    handle = stuck.enqueue()
    with pytest.raises(TaskFailed) as failure:
        handle.result(timeout=30)
    error = failure.value.error
    assert error.type == "stem_iso.errors.TimeoutException" and "0.8 s" in error.message
    assert "hold_the_gil" in error.stack
    assert handle.status().reason == "timeout"


def test_a_time_out_is_tried_again_where_attempts_are_left(app: Stem, begin: Begin):
    spin = app.task(name="spin", isolate=True, hard_time_limit=0.1, max_retries=1, retry_strategy=QuickRetries())(handlers.spin)
    _, recorder = begin(app)
    handle = spin.enqueue()
    recorder.wait(WorkerEventType.FAILED, handle.id)
    assert recorder.history(handle.id) == ["started", "timeout", "retried", "started", "timeout", "failed"]
    assert recorder.of(WorkerEventType.RETRIED, handle.id)[0].reason == "timeout"


def test_limits_given_at_enqueue_hold_and_are_seen_by_the_handler(app: Stem, begin: Begin):
    look = app.task(name="look", isolate=True)(handlers.look)
    spin = app.task(name="spin", isolate=True, hard_time_limit=3600)(handlers.spin)
    _, recorder = begin(app)
    assert look.using(hard_time_limit=60).enqueue().result(timeout=30)["remaining"] is True
    handle = spin.using(hard_time_limit=0.1).enqueue()
    assert recorder.wait(WorkerEventType.TIMEOUT, handle.id).limit == 0.1


def test_limits_that_only_the_worker_can_see_to_be_wrong_fail_once(app: Stem, begin: Begin):
    app.task(name="spin", isolate=True, hard_time_limit=5, max_retries=3)(handlers.spin)
    add = app.task(name="add", isolate=True)(handlers.add)
    producer = Stem(broker=app.broker)
    _, recorder = begin(app)
    handle = producer.task_named("spin").using(soft_time_limit=9).enqueue()
    recorder.wait(WorkerEventType.FAILED, handle.id)
    assert add.enqueue(1).result(timeout=30) == 2, "it holds no seat"
    assert recorder.history(handle.id) == ["failed"]
    status = app.handle(handle.id).status()
    assert status.reason == "invalid-options" and "soft_time_limit" in status.error.message


def test_a_handler_that_is_silent_too_long_is_ended_as_by_a_hard_limit(app: Stem, begin: Begin):
    spin = app.task(name="spin", isolate=True, heartbeat_timeout=0.2)(handlers.spin)
    _, recorder = begin(app)
    handle = spin.enqueue()
    failed = recorder.wait(WorkerEventType.FAILED, handle.id)
    assert "silent" in failed.error.message
    event = recorder.of(WorkerEventType.TIMEOUT, handle.id)[0]
    assert event.level == "hard" and event.silent


@pytest.mark.slow
def test_what_holds_too_much_memory_is_ended_and_tried_again_like_any_failure(app: Stem, begin: Begin):
    devour = app.task(name="devour", isolate=True, memory_limit="150MiB", max_retries=1, retry_strategy=QuickRetries())(handlers.devour)
    _, recorder = begin(app)
    handle = devour.enqueue(1 << 30)
    recorder.wait(WorkerEventType.FAILED, handle.id)
    assert recorder.history(handle.id) == ["started", "retried", "started", "failed"]
    assert recorder.of(WorkerEventType.RETRIED, handle.id)[0].reason == "memory"
    error = handle.status().error
    assert error.type == "stem_iso.errors.MemoryLimitExceeded" and "150 MiB exceeded" in error.message
    assert devour.using(memory_limit=None).enqueue(200 << 20).result(timeout=30) == 200 << 20


def test_the_process_is_dead_when_its_time_out_is_reported(app: Stem, begin: Begin, tmp_path):
    write = app.task(name="write", isolate=True, hard_time_limit=1.5)(handlers.write_pid)
    _, recorder = begin(app)
    handle = write.enqueue(str(tmp_path / "pid"))
    recorder.wait(WorkerEventType.FAILED, handle.id)
    pid = int((tmp_path / "pid").read_text())
    assert pid != os.getpid() and not alive(pid)
    assert handle.status().state is TaskState.FAILED


def test_what_was_sent_before_the_kill_is_kept(app: Stem, begin: Begin):
    say = app.task(name="say", isolate=True, hard_time_limit=1.5)(handlers.say_and_spin)
    _, recorder = begin(app)
    handle = say.enqueue({"step": 3})
    recorder.wait(WorkerEventType.FAILED, handle.id)
    status = handle.status()
    assert status.meta == {"said": "before the end"}
    assert (status.progress.percent, status.progress.data) == (42.0, {"step": 3})


def test_what_was_written_before_the_kill_is_there_in_the_next_attempt(app: Stem, begin: Begin):
    meta = app.task(name="meta", isolate=True, hard_time_limit=1.5, max_retries=1, retry_strategy=QuickRetries())(
        handlers.meta_then_spin_once
    )
    begin(app)
    assert meta.enqueue().result(timeout=30) == {"left": "by attempt 0"}
