"""What a limit does to the tasks that wait for it, and what it must not do to the others."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from stem_iso import Stem, TaskCancelled, TaskContext, Worker, WorkerEventType
from stem_iso.testing import eventually
from stem_iso.testing.assertions import throughout
from tests.worker import handlers
from tests.worker.conftest import Begin, QuickRetries


class Crowd:
    """Counts those that are in it, and the most that ever were."""

    def __init__(self) -> None:
        self.now = self.most = self.ever = 0

    async def visit(self, seconds: float = 0.01) -> None:
        self.now, self.ever = self.now + 1, self.ever + 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(seconds)
        self.now -= 1


def test_no_more_than_max_concurrency_run_and_all_of_them_run(app: Stem, begin: Begin):
    crowd = Crowd()
    visit = app.task(name="visit", max_concurrency=3)(crowd.visit)
    handles = app.enqueue_many([visit.s() for _ in range(60)])
    began = time.monotonic()
    begin(app, concurrency=8)
    for handle in handles:
        handle.result(timeout=30)
    assert (crowd.most, crowd.ever) == (3, 60)
    assert time.monotonic() - began < 5  # 0.2 s of naps, and no waiting for delays
    assert {(each.attempt, each.redeliveries) for each in (handle.status() for handle in handles)} == {(0, 0)}


def test_a_rate_lets_through_what_it_says_and_reports_no_waiting(app: Stem, begin: Begin):
    began: list[float] = []

    @app.task(name="tick", rate_limit="5/500ms")
    async def tick() -> None:
        began.append(time.monotonic())

    handles = app.enqueue_many([tick.s() for _ in range(12)])
    before = time.monotonic()
    _, recorder = begin(app, concurrency=4)
    for handle in handles:
        handle.result(timeout=30)
    assert len(began) == 12 and began[-1] - before > 1.0, "the last two are in the third half of a second"
    recorder.wait(WorkerEventType.COMPLETED, count=12)
    assert all(recorder.history(handle.id)[0] == "started" for handle in handles)
    assert not recorder.of(WorkerEventType.RETRIED) and not recorder.of(WorkerEventType.ERROR)


def test_a_thousand_that_wait_hold_up_nobody_else_and_no_seat(app: Stem, begin: Begin, tmp_path):
    wait = app.task(name="wait", max_concurrency=1)(handlers.say_and_wait)
    add = app.task(name="add")(handlers.add)
    held = app.enqueue_many([wait.s(str(tmp_path / "gate")) for _ in range(1000)])
    others = app.enqueue_many([add.s(1) for _ in range(10)])
    began = time.monotonic()
    begin(app, concurrency=2)
    for handle in others:
        assert handle.result(timeout=30) == 2
    assert time.monotonic() - began < 10  # each of the thousand is asked once; 1 s on an idle machine
    states = [handle.status() for handle in held[:5]]
    assert [each.state.value for each in states] == ["running", *["queued"] * 4]
    assert {each.reason for each in states[1:]} == {"concurrency-limit"}
    (tmp_path / "gate").touch()


def test_a_key_is_limited_by_itself(app: Stem, begin: Begin):
    crowds = {name: Crowd() for name in "ab"}
    both = Crowd()

    @app.task(name="visit", max_concurrency=1)
    async def visit(name: str) -> None:
        both.now += 1
        both.most = max(both.most, both.now)
        await crowds[name].visit()
        both.now -= 1

    handles = [visit.using(limit_key=f"customer-{name}").enqueue(name) for _ in range(10) for name in "ab"]
    begin(app, concurrency=6)
    for handle in handles:
        handle.result(timeout=30)
    assert [crowd.most for crowd in crowds.values()] == [1, 1]
    assert both.most == 2


def test_limits_given_at_enqueue_override_and_need_no_code_there(app: Stem, begin: Begin, tmp_path):
    app.task(name="wait", max_concurrency=1)(handlers.say_and_wait)
    producer = Stem(broker=app.broker)
    args = {"path": str(tmp_path / "gate")}
    first = producer.enqueue("wait", args)
    refused = producer.enqueue("wait", args)
    free = producer.enqueue("wait", args, max_concurrency=None)
    _, recorder = begin(app, concurrency=4)
    recorder.wait(WorkerEventType.PROGRESS, first.id)
    recorder.wait(WorkerEventType.PROGRESS, free.id)
    eventually(lambda: app.handle(refused.id).status().reason == "concurrency-limit")
    (tmp_path / "gate").touch()
    assert app.handle(refused.id).result(timeout=30) == "done"


@pytest.mark.slow
def test_retries_crashes_and_kills_give_their_places_back(app: Stem, begin: Begin):
    options = {"max_concurrency": 1, "isolate": True}
    tasks = [
        app.task(name="flaky", max_retries=2, retry_strategy=QuickRetries(), **options)(handlers.flaky).using(limit_key="k").s(until=2),
        app.task(name="crash", **options)(handlers.crash).using(limit_key="k").s(),
        app.task(name="spin", hard_time_limit=0.2, **options)(handlers.spin).using(limit_key="k").s(),
    ]
    _, recorder = begin(app, concurrency=3)
    app.enqueue_many([each for each in tasks for _ in range(2)])
    for kind, count in ((WorkerEventType.COMPLETED, 2), (WorkerEventType.FAILED, 4), (WorkerEventType.RETRIED, 4)):
        recorder.wait(kind, count=count)


@pytest.mark.slow
def test_at_most_once_is_marked_when_it_has_its_place_and_not_before(app: Stem, begin: Begin, tmp_path):
    wait = app.task(name="wait", isolate=True, max_concurrency=1, acks_late=False)(handlers.say_and_wait)
    first, second = wait.enqueue(str(tmp_path / "gate")), wait.enqueue(str(tmp_path / "gate"))
    worker, recorder = begin(app, concurrency=2, shutdown_timeout=0)
    recorder.wait(WorkerEventType.PROGRESS, first.id)
    eventually(lambda: second.status().reason == "concurrency-limit")
    worker.stop(at_once=True)
    worker.join(30)
    assert (first.status().reason, second.status().state.value) == ("worker-lost", "queued")
    (tmp_path / "gate").touch()
    begin(app)
    assert second.result(timeout=30) == "done"


def test_a_shutdown_hands_the_place_to_another_worker(app: Stem, begin: Begin, tmp_path):
    wait = app.task(name="wait", isolate=True, max_concurrency=1)(handlers.say_and_wait)
    first = wait.enqueue(str(tmp_path / "gate"))
    worker, recorder = begin(app, shutdown_timeout=0)
    recorder.wait(WorkerEventType.PROGRESS, first.id)
    second = wait.enqueue(str(tmp_path / "gate"))
    _, other = begin(app, concurrency=2)
    eventually(lambda: second.status().reason == "concurrency-limit")
    worker.stop(at_once=True)
    other.wait(WorkerEventType.PROGRESS)
    (tmp_path / "gate").touch()
    assert [handle.result(timeout=30) for handle in (first, second)] == ["done", "done"]


def test_one_that_waits_in_line_can_be_revoked_and_expires_in_time(app: Stem, begin: Begin, tmp_path):
    wait = app.task(name="wait", max_concurrency=1)(handlers.say_and_wait)
    first = wait.enqueue(str(tmp_path / "gate"))
    revoked, expiring = wait.enqueue(str(tmp_path / "gate")), wait.using(expires=0.5).enqueue(str(tmp_path / "gate"))
    _, recorder = begin(app, concurrency=2)
    recorder.wait(WorkerEventType.PROGRESS, first.id)
    eventually(lambda: revoked.status().reason == "concurrency-limit")
    assert revoked.revoke()
    with pytest.raises(TaskCancelled):
        revoked.result(timeout=0)
    assert recorder.wait(WorkerEventType.REVOKED, expiring.id, within=5).reason == "expired"
    (tmp_path / "gate").touch()


def test_burst_waits_for_those_in_line(app: Stem):
    crowd = Crowd()
    visit = app.task(name="visit", max_concurrency=1)(crowd.visit)
    tick = app.task(name="tick", rate_limit="1/300ms")(crowd.visit)
    app.enqueue_many([*(visit.s(0.02) for _ in range(5)), *(tick.s(0.0) for _ in range(3))])
    began = time.monotonic()
    Worker(app, concurrency=4, burst=True).run()
    assert crowd.ever == 8
    assert 0.6 < time.monotonic() - began < 10


def test_burst_does_not_wait_for_what_another_worker_took_out_of_the_line(app: Stem, begin: Begin, tmp_path):
    wait = app.task(name="wait", max_concurrency=1)(handlers.say_and_wait)
    first, second = wait.enqueue(str(tmp_path / "one")), wait.enqueue(str(tmp_path / "two"))
    _, recorder = begin(app)
    recorder.wait(WorkerEventType.PROGRESS, first.id)
    burst, _ = begin(app, burst=True)
    ended = threading.Thread(target=burst.join)
    ended.start()
    eventually(lambda: second.status().reason == "concurrency-limit")
    throughout(ended.is_alive, 0.3)
    (tmp_path / "one").touch()
    (tmp_path / "two").touch()
    assert second.result(timeout=30) == "done"
    ended.join(10)
    assert not ended.is_alive()


def test_what_a_task_enqueues_may_name_a_key(app: Stem, begin: Begin):
    app.task(name="child", isolate=True, rate_limit="100/s")(handlers.add)

    @app.task(name="parent")
    def parent(context: TaskContext) -> str:
        return context.enqueue(app.tasks["child"].using(limit_key="k"), {"a": 1}).id

    begin(app, concurrency=2)
    assert app.handle(parent.enqueue().result(timeout=30)).result(timeout=30) == 2


def test_storage_returns_to_its_baseline(app: Stem, begin: Begin, tmp_path: Path):
    visit = app.task(name="visit", max_concurrency=2, rate_limit="50/200ms", result_ttl=0.001)(Crowd().visit)
    handles = [visit.using(limit_key=str(number)).enqueue(0.0) for number in range(20) for _ in range(2)]
    _, recorder = begin(app, concurrency=4)
    recorder.wait(WorkerEventType.COMPLETED, count=len(handles))
    broker = app.open_broker()

    def rows() -> list[int]:
        broker.sweep()
        return broker._database.read(lambda turn: [turn.one(f"SELECT count(*) FROM {table}") for table in ("bucket", "start", "task")])

    eventually(lambda: rows() == [0, 0, 0])
    broker.close()
