"""Leases: renewed while a task lives, lost where nobody renewed them, and never settled by the loser."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import pytest

from stem_iso import Stem, TaskFailed, TaskHandler, TaskOptions, WorkerEventType
from stem_iso.testing import eventually
from stem_iso.worker.options import Origin
from tests.worker import handlers
from tests.worker.conftest import Begin, alive, lease_end, steal


@pytest.mark.slow
def test_a_task_that_lasts_many_times_its_visibility_is_delivered_once(app: Stem, begin: Begin, tmp_path):
    wait = app.task(name="wait", isolate=True, visibility_timeout=0.4)(handlers.count_and_wait)
    begin(app)
    begin(app)  # another one, that would take what is not renewed
    handle = wait.enqueue(str(tmp_path / "runs"), str(tmp_path / "gate"))
    eventually((tmp_path / "runs").exists, 20)
    waited = app.task(name="delayed")(handlers.add).using(delay=1.6).enqueue(1)
    waited.result(timeout=30)
    (tmp_path / "gate").touch()
    assert handle.result(timeout=30) == 1
    assert handle.status().redeliveries == 0


def test_a_worker_that_lost_the_lease_kills_its_isolate_and_settles_nothing(app: Stem, begin: Begin, tmp_path):
    spin = app.task(name="spin", isolate=True, visibility_timeout=0.6)(handlers.write_pid)
    _, recorder = begin(app)
    handle = spin.enqueue(str(tmp_path / "pid"))
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    pid = int((tmp_path / "pid").read_text())
    steal(app, handle.id)
    assert "lost" in recorder.wait(WorkerEventType.ERROR, handle.id, within=5).message
    eventually(lambda: not alive(pid))
    add = app.task(name="add", isolate=True)(handlers.add)
    assert add.enqueue(1).result(timeout=30) == 2, "the seat is free again"
    assert handle.status().state.value == "running"
    assert not {"completed", "failed", "revoked", "retried"} & set(recorder.history(handle.id))


def test_a_success_after_the_lease_was_lost_does_not_count(app: Stem, begin: Begin, tmp_path):
    wait = app.task(name="wait", isolate=True)(handlers.say_and_wait)
    _, recorder = begin(app)
    handle = wait.enqueue(str(tmp_path / "gate"))
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    steal(app, handle.id)
    (tmp_path / "gate").touch()
    assert "lost" in recorder.wait(WorkerEventType.ERROR, handle.id).message
    assert handle.status().state.value == "running"
    assert "completed" not in recorder.history(handle.id)


def test_a_lease_is_extended_on_request_and_an_extension_that_comes_too_late_raises_in_the_handler(app: Stem, begin: Begin):
    extend = app.task(name="extend", isolate=True)(handlers.extend)
    begin(app)
    assert extend.enqueue(by=900).result(timeout=30) == "extended"


def test_a_heartbeat_renews_the_lease_at_once(app: Stem, begin: Begin, tmp_path):
    beat = app.task(name="beat", isolate=True, visibility_timeout=600)(handlers.wait_and_beat)
    _, recorder = begin(app)
    handle = beat.enqueue(str(tmp_path / "gate"))
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    before = lease_end(app, handle.id)
    eventually(lambda: time.monotonic() - recorder.first_at(handle.id) > 0.2)
    (tmp_path / "gate").touch()
    eventually(lambda: lease_end(app, handle.id) > before + 0.1, 10)


def test_every_heartbeat_is_an_event(app: Stem, begin: Begin):
    beat = app.task(name="beat", isolate=True, visibility_timeout=0.5)(handlers.beat)
    _, recorder = begin(app)
    handle = beat.enqueue(20)
    recorder.wait(WorkerEventType.COMPLETED, handle.id)
    assert len(recorder.of(WorkerEventType.HEARTBEAT, handle.id)) == 20


def test_what_a_dead_worker_held_is_taken_by_another_when_its_lease_has_run_out(app: Stem, begin: Begin):
    add = app.task(name="add", isolate=True, visibility_timeout=0.3)(handlers.add)
    handle = add.enqueue(1)
    leased = app.open_broker().exchange("a-dead-boot", [], ["default"], 1)
    assert len(leased.deliveries) == 1
    begin(app)
    assert handle.result(timeout=30) == 2
    assert handle.status().redeliveries == 1


class Unready(TaskHandler[int]):
    """Its options cannot always be read."""

    name = "unready"
    broken = False

    @property
    def options(self) -> TaskOptions:  # type: ignore[override]
        if self.broken:
            raise RuntimeError("not now")
        return TaskOptions()

    def call(self, context: Any, args: Any) -> int:
        return 7


def test_what_a_worker_dropped_after_an_error_of_its_own_comes_back_to_it_when_its_lease_ends(app: Stem, begin: Begin):
    handler = Unready()
    app.register(handler)
    _, recorder = begin(app)
    with closing(Stem(app.broker)) as producer:
        handler.broken = True
        handle = producer.enqueue("unready", {}, visibility_timeout=0.5)
        assert "not now" in recorder.wait(WorkerEventType.ERROR).traceback
        assert handle.status().state.value == "running"
        ends = lease_end(app, handle.id)
        handler.broken = False
        assert handle.result(timeout=30) == 7
        status = handle.status()
        assert status.redeliveries >= 1
        assert status.started_at is not None and status.started_at.timestamp() >= ends
    assert all("not now" in error.traceback for error in recorder.of(WorkerEventType.ERROR)), "it was dropped, not found astray later"


def test_the_leases_of_a_predecessor_are_taken_at_once(app: Stem, begin: Begin):
    add = app.task(name="add", isolate=True, visibility_timeout=600)(handlers.add)
    handle = add.enqueue(1)
    app.open_broker().exchange("the-dead-core", [], ["default"], 1)
    begin(app, origin=Origin(predecessors=("an-older-one", "the-dead-core")))
    assert handle.result(timeout=30) == 2


def test_at_most_once_means_that_a_lost_worker_is_the_end(app: Stem, begin: Begin):
    add = app.task(name="add", isolate=True, visibility_timeout=0.2, acks_late=False)(handlers.add)
    handle = add.enqueue(1)
    broker = app.open_broker()
    receipt = broker.exchange("a-dead-boot", [], ["default"], 1).deliveries[0].receipt
    assert broker.mark(receipt)
    _, recorder = begin(app)
    assert recorder.wait(WorkerEventType.FAILED, handle.id).reason == "worker-lost"
    with pytest.raises(TaskFailed) as failure:
        handle.result(timeout=10)
    assert failure.value.status.reason == "worker-lost"


def test_a_task_that_is_acknowledged_early_runs_and_is_stored_like_any_other(app: Stem, begin: Begin):
    add = app.task(name="add", isolate=True, acks_late=False)(handlers.add)
    begin(app)
    assert add.enqueue(1).result(timeout=30) == 2


def test_a_task_that_kills_its_workers_ends_at_the_redelivery_limit(tmp_path, begin: Begin):
    app = Stem(broker=f"sqlite:///{tmp_path}/limit.db", claim_interval=0.05, max_redeliveries=2)
    add = app.task(name="add", isolate=True, visibility_timeout=0.05)(handlers.add)
    handle = add.enqueue(1)
    broker = app.open_broker()
    for boot in ("first", "second", "third"):
        eventually(lambda boot=boot: broker.reclaim("somebody") is not None and broker.exchange(boot, [], ["default"], 1).deliveries)
    _, recorder = begin(app)
    assert recorder.wait(WorkerEventType.FAILED, handle.id).reason == "redelivery-limit"


def test_an_early_acknowledgement_is_in_the_store_before_the_task_begins(app: Stem, begin: Begin):
    spin = app.task(name="spin", isolate=True, acks_late=False)(handlers.say_and_spin)
    worker, recorder = begin(app)
    handle = spin.enqueue()
    recorder.wait(WorkerEventType.PROGRESS, handle.id)
    found = app.open_broker().reclaim("somebody", predecessor=worker.boot)  # as if this worker had died
    assert [(each.id, each.state.value, each.reason) for each in found] == [(handle.id, "failed", "worker-lost")]


class TakenAway(Stem):
    """Whoever marks a delivery learns that it has just been given to another."""

    def open_broker(self) -> Any:
        broker = super().open_broker()
        broker.mark = lambda receipt: False  # type: ignore[method-assign]
        return broker


def test_a_task_that_cannot_be_acknowledged_early_does_not_run(tmp_path, begin: Begin):
    app = TakenAway(broker=f"sqlite:///{tmp_path}/jobs.db")
    count = app.task(name="count", isolate=True, acks_late=False)(handlers.count_runs)
    add = app.task(name="add", isolate=True)(handlers.add)
    _, recorder = begin(app)
    handle = count.enqueue(str(tmp_path / "runs"))
    assert "before the task began" in recorder.wait(WorkerEventType.ERROR, handle.id).message
    assert add.enqueue(1).result(timeout=30) == 2
    assert not (tmp_path / "runs").exists() and recorder.of(WorkerEventType.STARTED, handle.id) == []
