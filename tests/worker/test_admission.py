"""What never runs, and what runs at its time and in its order."""

from __future__ import annotations

import sqlite3
import time

import msgspec
import pytest

from stem_iso import InvalidOptions, Stem, TaskFailed, TaskState, WorkerEventType
from stem_iso.brokers.base import DeadFilter
from stem_iso.task.envelope import Envelope, encode
from stem_iso.testing import eventually
from tests.worker import handlers
from tests.worker.conftest import Begin, QuickRetries


def test_an_unknown_name_is_given_back_while_a_deploy_may_bring_it(app: Stem, begin: Begin):
    handle = app.enqueue("not.yet", {"a": 1})
    worker, recorder = begin(app)
    eventually(lambda: app.open_broker().queues()[0].delayed == 1)
    app.task(name="not.yet")(handlers.add)
    assert handle.result(timeout=30) == 2
    recorder.wait(WorkerEventType.COMPLETED, handle.id)
    assert recorder.history(handle.id) == ["started", "completed"]
    assert worker.id == handle.status().worker_id


def test_an_unknown_name_is_dead_lettered_when_its_grace_is_over(app: Stem, begin: Begin):
    handle = app.enqueue("never", {})
    _, recorder = begin(app, unregistered_grace=0)
    assert recorder.wait(WorkerEventType.FAILED, handle.id).reason == "unregistered-task"
    assert [letter.reason for letter in app.open_broker().dead_letters(DeadFilter())] == ["unregistered-task"]


def test_bytes_that_are_no_envelope_are_dead_lettered_raw_and_block_nobody(app: Stem, begin: Begin, tmp_path):
    add = app.task(name="add", isolate=True)(handlers.add)
    broken, good = add.enqueue(1), add.enqueue(2)
    with sqlite3.connect(tmp_path / "jobs.db") as database:
        database.execute("UPDATE task SET body = ? WHERE id = (SELECT id FROM task ORDER BY seq LIMIT 1)", (b"\xc1 garbage",))
    database.close()
    _, recorder = begin(app)
    assert good.result(timeout=30) == 3
    event = recorder.wait(WorkerEventType.FAILED, broken.id)
    assert event.reason == "undecodable" and event.queue == "default"
    assert app.open_broker().dead_letters(DeadFilter())[0].body == b"\xc1 garbage"


def test_an_id_that_no_process_can_bear_and_one_of_another_task_are_dead_lettered(app: Stem, begin: Begin):
    add = app.task(name="add", isolate=True)(handlers.add)
    broker = app.open_broker()
    nul, mine, yours = (Envelope(id=id, name="add", args=msgspec.Raw(b"\x81\xa1a\x01")) for id in ("a\0b", "mine", "yours"))
    broker.publish([nul, mine])
    with sqlite3.connect(app.broker.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE task SET body = ? WHERE id = 'mine'", (encode(yours),))
    database.close()
    begin(app)
    assert add.enqueue(2).result(timeout=30) == 3
    eventually(lambda: {letter.reason for letter in broker.dead_letters(DeadFilter())} == {"undecodable"}, 30)
    assert [letter.id for letter in broker.dead_letters(DeadFilter())] == ["a\0b", "mine"]
    broker.close()
    for wrong in ("a\0b", "", "a\nb"):
        with pytest.raises(InvalidOptions, match="task_id"):
            add.using(task_id=wrong).enqueue(1)


def test_arguments_that_do_not_fit_fail_once(app: Stem, begin: Begin):
    app.task(name="add", isolate=True, max_retries=3)(handlers.add)
    app.task(name="inline", max_retries=3)(handlers.add)
    producer = Stem(broker=app.broker)
    _, recorder = begin(app)
    for name in ("add", "inline"):
        handle = producer.enqueue(name, {"no": "such"})
        assert recorder.wait(WorkerEventType.FAILED, handle.id).reason == "invalid-arguments"
        with pytest.raises(TaskFailed):
            app.handle(handle.id).result(timeout=10)
        assert "retried" not in recorder.history(handle.id)


def test_a_delayed_task_runs_at_its_time_and_an_earlier_one_that_comes_later_is_not_held_up(app: Stem, begin: Begin):
    add = app.task(name="add")(handlers.add)
    _, recorder = begin(app)
    before = time.time()
    far = add.using(delay=600).enqueue(0)
    late = add.using(delay=1.0).enqueue(1)
    soon = add.using(delay=0.3).enqueue(2)
    at_soon = recorder.wait(WorkerEventType.STARTED, soon.id).at - before
    at_late = recorder.wait(WorkerEventType.STARTED, late.id).at - before
    assert at_soon >= 0.29 and at_late >= 0.99
    assert far.status().state is TaskState.QUEUED


def test_the_highest_priority_runs_first_then_arrival_decides(app: Stem, begin: Begin):
    add = app.task(name="add")(handlers.add)
    handles = {(priority, order): add.using(priority=priority).enqueue(1) for order in range(3) for priority in (0, 9, 5)}
    _, recorder = begin(app)
    recorder.wait(WorkerEventType.COMPLETED, count=9)
    ran = [event.task_id for event in recorder.of(WorkerEventType.STARTED)]
    assert ran == [handles[priority, order].id for priority in (9, 5, 0) for order in range(3)]


def test_a_unique_task_is_free_again_when_it_has_ended_and_not_between_its_attempts(app: Stem, begin: Begin):
    flaky = app.task(name="flaky", isolate=True, unique=True, max_retries=2, retry_strategy=QuickRetries())(handlers.flaky)
    _, recorder = begin(app)
    first = flaky.enqueue(until=2)
    second = flaky.enqueue(until=2)
    assert first.id == second.id
    assert first.result(timeout=30) == 2
    recorder.wait(WorkerEventType.COMPLETED, first.id)
    assert flaky.enqueue(until=2).id != first.id


def test_a_worker_takes_only_from_its_queues(app: Stem, begin: Begin):
    here = app.task(name="here", queue="here")(handlers.add)
    there = app.task(name="there", queue="there")(handlers.add)
    elsewhere = there.enqueue(1)
    begin(app, queues=["here"])
    assert here.enqueue(1).result(timeout=30) == 2
    assert elsewhere.status().state.value == "queued"
    begin(app)  # every queue that the tasks declare
    assert elsewhere.result(timeout=30) == 2
