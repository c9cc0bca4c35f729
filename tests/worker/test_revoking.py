"""Revokes: of what waits, of what runs, of what would come next."""

from __future__ import annotations

import pytest

from stem_iso import Stem, TaskCancelled, WorkerEventType
from stem_iso.outcome import TaskState
from stem_iso.testing import eventually
from tests.worker import handlers
from tests.worker.conftest import Begin, QuickRetries, alive


def test_what_waits_never_runs(app: Stem, begin: Begin, tmp_path):
    count = app.task(name="count", isolate=True)(handlers.count_runs)
    add = app.task(name="add", isolate=True)(handlers.add)
    handle = count.enqueue(str(tmp_path / "runs"))
    assert handle.revoke() is True
    _, recorder = begin(app)
    assert add.enqueue(1).result(timeout=30) == 2
    assert recorder.wait(WorkerEventType.REVOKED, handle.id, within=10).reason == "revoked"
    assert not (tmp_path / "runs").exists()
    with pytest.raises(TaskCancelled):
        handle.result(timeout=10)


def test_a_running_task_is_left_to_end_and_its_success_stands(app: Stem, begin: Begin, tmp_path):
    wait = app.task(name="wait", isolate=True)(handlers.say_and_wait)
    _, recorder = begin(app)
    handle = wait.enqueue(str(tmp_path / "gate"))
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    assert handle.revoke() is True
    (tmp_path / "gate").touch()
    assert handle.result(timeout=30) == "done"
    recorder.wait(WorkerEventType.COMPLETED, handle.id)


def test_with_terminate_the_isolate_is_killed_at_once(app: Stem, begin: Begin, tmp_path):
    spin = app.task(name="spin", isolate=True)(handlers.write_pid)
    _, recorder = begin(app)
    handle = spin.enqueue(str(tmp_path / "pid"))
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    assert handle.revoke(terminate=True) is True
    assert recorder.wait(WorkerEventType.REVOKED, handle.id, within=5).reason == "revoked"
    assert not alive(int((tmp_path / "pid").read_text()))
    assert handle.status().state is TaskState.CANCELLED
    assert recorder.history(handle.id) == ["started", "progress", "revoked"]


def test_an_inline_thread_cannot_be_ended_and_the_worker_says_so(app: Stem, begin: Begin, tmp_path):
    wait = app.task(name="wait")(handlers.say_and_wait)
    _, recorder = begin(app)
    handle = wait.enqueue(str(tmp_path / "gate"))
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    assert handle.revoke(terminate=True) is True
    assert "cannot be ended: an inline sync handler" in recorder.wait(WorkerEventType.ERROR, handle.id).message
    (tmp_path / "gate").touch()
    assert handle.result(timeout=30) == "done"


def test_terminate_names_the_attempt_that_runs_and_no_other_task(app: Stem, begin: Begin, tmp_path):
    spin = app.task(name="spin", isolate=True)(handlers.say_and_spin)
    wait = app.task(name="wait", isolate=True)(handlers.say_and_wait)
    _, recorder = begin(app, concurrency=2)
    other = wait.enqueue(str(tmp_path / "gate"))
    handle = spin.enqueue()
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    recorder.wait(WorkerEventType.PROGRESS, other.id)
    handle.revoke(terminate=True)
    recorder.wait(WorkerEventType.REVOKED, handle.id)
    (tmp_path / "gate").touch()
    assert other.result(timeout=30) == "done"


@pytest.mark.slow
def test_no_retry_follows_a_revoked_attempt_that_fails(app: Stem, begin: Begin):
    fail = app.task(name="fail", isolate=True, hard_time_limit=1.0, max_retries=5, retry_strategy=QuickRetries())(handlers.say_and_spin)
    _, recorder = begin(app)
    handle = fail.enqueue()
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    assert handle.revoke()
    assert recorder.wait(WorkerEventType.REVOKED, handle.id).reason == "revoked"
    assert "retried" not in recorder.history(handle.id)
    assert handle.status().state is TaskState.CANCELLED


def test_a_pending_retry_is_cancelled(app: Stem, begin: Begin):
    flaky = app.task(name="flaky", isolate=True, max_retries=1)(handlers.flaky)
    _, recorder = begin(app)
    handle = flaky.enqueue(until=1)
    recorder.wait(WorkerEventType.RETRIED, handle.id)
    assert handle.revoke()
    with pytest.raises(TaskCancelled):
        handle.result(timeout=10)


def test_a_handler_cancels_other_work(app: Stem, begin: Begin):
    spin = app.task(name="spin", isolate=True)(handlers.say_and_spin)
    cancel = app.task(name="cancel", isolate=True)(handlers.cancel)
    _, recorder = begin(app, concurrency=2)
    victim = spin.enqueue()
    recorder.wait(WorkerEventType.PROGRESS, victim.id)
    assert cancel.enqueue(victim.id, terminate=True).result(timeout=30) is True
    recorder.wait(WorkerEventType.REVOKED, victim.id)
    assert cancel.enqueue(victim.id).result(timeout=30) is False


def test_an_expired_task_is_cancelled_with_its_own_reason(app: Stem, begin: Begin, tmp_path):
    count = app.task(name="count", isolate=True)(handlers.count_runs)
    handle = count.using(expires=0.001).enqueue(str(tmp_path / "runs"))
    _, recorder = begin(app)
    assert recorder.wait(WorkerEventType.REVOKED, handle.id).reason == "expired"
    assert handle.status().state is TaskState.CANCELLED and not (tmp_path / "runs").exists()


def test_what_is_revoked_while_it_waits_is_reported_by_one_worker_of_several(app: Stem, begin: Begin):
    add = app.task(name="add", isolate=True)(handlers.add)
    recorders = [begin(app)[1] for _ in range(2)]
    handles = [add.using(delay=60).enqueue(1) for _ in range(20)]
    assert all(handle.revoke() for handle in handles)
    ids = sorted(handle.id for handle in handles)
    eventually(lambda: sorted(event.task_id for recorder in recorders for event in recorder.of(WorkerEventType.REVOKED)) == ids)
