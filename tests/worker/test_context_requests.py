"""What handlers say to their context while they run."""

from __future__ import annotations

import pytest

from stem_iso import Stem, TaskFailed, WorkerEventType
from stem_iso.testing import eventually
from tests.worker import handlers
from tests.worker.conftest import Begin


def test_progress_and_meta_are_seen_while_the_task_runs(app: Stem, begin: Begin):
    say = app.task(name="say", isolate=True)(handlers.say_and_spin)
    _, recorder = begin(app)
    handle = say.enqueue({"step": 1})
    event = recorder.wait(WorkerEventType.PROGRESS, handle.id)
    assert (event.percent, event.data) == (42.0, {"step": 1})
    status = eventually(lambda: handle.status() if handle.status().progress else None)
    assert status.state.value == "running" and status.meta == {"said": "before the end"}


def test_what_a_task_enqueues_knows_its_parent_and_its_root(app: Stem, begin: Begin):
    spawn = {True: app.task(name="spawn", isolate=True)(handlers.spawn_child), False: app.task(name="inline")(handlers.spawn_child)}
    app.task(name="add")(handlers.add)
    begin(app)
    for task in spawn.values():
        parent = task.enqueue()
        child = app.handle(parent.result(timeout=30))
        assert child.result(timeout=30) == 2
        assert (child.status().parent_id, child.status().root_id) == (parent.id, parent.id)


def test_an_unknown_id_cannot_be_revoked_and_the_handler_gets_false(app: Stem, begin: Begin):
    cancel = app.task(name="cancel", isolate=True)(handlers.cancel)
    begin(app)
    assert cancel.enqueue("no-such-id").result(timeout=30) is False


@pytest.mark.slow
def test_ten_thousand_reports_of_one_handler_cost_few_writes(app: Stem, begin: Begin):
    report = app.task(name="report", isolate=True)(handlers.report)
    _, recorder = begin(app)
    handle = report.enqueue(10_000)
    assert handle.result(timeout=60) == "reported"
    recorder.wait(WorkerEventType.COMPLETED, handle.id)
    assert handle.status().progress.percent == 100.0


def test_a_question_that_the_worker_fails_at_is_answered_all_the_same(app: Stem, begin: Begin):
    compose = app.task(name="compose", isolate=True, hard_time_limit=10)(handlers.compose_what_no_store_can_hold)
    _, recorder = begin(app)
    assert "failed to carry it out" in compose.enqueue().result(timeout=30)
    assert "OverflowError" in recorder.wait(WorkerEventType.ERROR).traceback
    assert compose.enqueue().result(timeout=30)


@pytest.mark.parametrize("isolate", [True, False], ids=["isolated", "inline"])
def test_what_is_larger_than_arguments_may_be_is_refused_in_the_handler_that_says_it(app: Stem, begin: Begin, isolate: bool):
    say = app.task(name="say", isolate=isolate)(handlers.say_much)
    app.task(name="keep")(handlers.keep)
    begin(app)
    most = app.broker_options.max_payload_bytes
    for what, names in (("progress", "data of progress()"), ("meta", "meta"), ("revoke", "asked for"), ("enqueue", "keep")):
        message = say.enqueue(what, most + 1).result(timeout=60)
        assert names in message and f"max_payload_bytes is {most:,}" in message, what
    fits = say.enqueue("progress", most // 2)
    assert fits.result(timeout=60) == "nothing was raised"
    assert fits.status().progress.data == "x" * (most // 2)


def test_meta_that_grew_too_large_inside_fails_its_task_at_the_end(app: Stem, begin: Begin):
    grow = app.task(name="grow", isolate=True)(handlers.grow_meta)
    begin(app)
    with pytest.raises(TaskFailed) as caught:
        grow.enqueue(app.broker_options.max_payload_bytes + 1).result(timeout=60)
    assert caught.value.error.type == "stem_iso.errors.PayloadTooLarge" and "meta" in caught.value.error.message


def test_a_log_record_without_measure_ends_in_the_log_with_its_beginning(app: Stem, begin: Begin, caplog: pytest.LogCaptureFixture):
    log = app.task(name="log", isolate=True)(handlers.log_much)
    begin(app)
    assert log.enqueue(40 << 20).result(timeout=60) == "logged"
    eventually(lambda: "x" * 1000 in caplog.text, 30)  # the log comes a little after the result
