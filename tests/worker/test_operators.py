"""What operators do to a worker that runs, and what they see of it: pauses, commands, isolates."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stem_iso import Stem, WorkerEventType
from stem_iso.brokers.operations import Pauses
from stem_iso.isolate.keeper import process_tree
from stem_iso.testing import eventually
from stem_iso.testing.assertions import throughout
from tests.servers.fixtures import broker_of
from tests.worker import handlers
from tests.worker.conftest import Begin, QuickRetries
from tests.worker.operators import BOUND, Operator

STORES = ["sqlite", "memory", "redis"]


@pytest.fixture(params=STORES)
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stem]:
    if request.param == "memory":
        with closing(Stem("memory://", claim_interval=0.1)) as app:
            yield app
    else:
        with broker_of(request.param, tmp_path) as url, closing(Stem(url, claim_interval=0.1)) as app:
            yield app


@pytest.fixture
def operator(app: Stem) -> Operator:
    return Operator(app)


class Tasks:
    """Quick tasks, and one that waits until the test lets it end."""

    def __init__(self, app: Stem, folder: Path) -> None:
        self.gate = str(folder / "gate")
        self.quick = app.task(name="quick")(_quick)
        self.other = app.task(name="other", queue="other")(_quick)
        self.long = app.task(name="long", isolate=True, max_retries=0)(handlers.say_and_wait)

    def open(self) -> None:
        Path(self.gate).touch()


async def _quick() -> str:
    return "done"


@pytest.fixture
def tasks(app: Stem, tmp_path: Path) -> Tasks:
    return Tasks(app, tmp_path)


def running(handle: Any) -> Any:
    return eventually(lambda: (status := handle.status()).state == "running" and status.progress is not None and status, within=BOUND)


# -- pauses --------------------------------------------------------------------------------------------------------------------------------


def test_nothing_of_a_paused_queue_begins_until_it_is_resumed(app: Stem, operator: Operator, tasks: Tasks, begin: Begin) -> None:
    begin(app, concurrency=2)
    operator.pause("default")
    held, served = tasks.quick.enqueue(), tasks.other.enqueue()
    assert served.result(timeout=BOUND) == "done"
    throughout(lambda: held.status().state == "queued", 0.3)
    operator.resume("default")
    assert held.result(timeout=BOUND) == "done"
    assert (held.status().attempt, held.status().redeliveries) == (0, 0)


def test_a_worker_that_starts_later_obeys_a_pause_from_its_first_look_on(app: Stem, operator: Operator, tasks: Tasks, begin: Begin) -> None:
    operator.broker.pause("default")
    held, served = tasks.quick.enqueue(), tasks.other.enqueue()
    begin(app)
    served.result(timeout=BOUND)
    assert held.status().state == "queued"
    operator.resume("default")
    assert held.result(timeout=BOUND) == "done"


def test_what_runs_ends_though_its_queue_is_paused(app: Stem, operator: Operator, tasks: Tasks, begin: Begin) -> None:
    begin(app)
    long = tasks.long.enqueue(tasks.gate)
    running(long)
    operator.pause("default")
    tasks.open()
    assert long.result(timeout=BOUND) == "done"


def test_what_waits_for_its_isolate_goes_back_before_the_pause_is_acknowledged(
    app: Stem, operator: Operator, tmp_path: Path, begin: Begin
) -> None:
    boots = str(tmp_path / "boots")
    app.on_isolate_start(lambda: handlers.wait_for(boots))
    wait = app.task(name="wait", isolate=True)(handlers.say_and_wait)
    _, recorder = begin(app, concurrency=1)
    handle = wait.enqueue(str(tmp_path / "gate"))
    eventually(lambda: handle.status().worker_id is not None or handle.status().state == "running", within=BOUND)
    operator.pause("default")
    Path(boots).touch()
    recorder.wait(WorkerEventType.ISOLATE, count=2)
    eventually(lambda: handle.status().state == "queued", within=BOUND)
    throughout(lambda: not recorder.of(WorkerEventType.STARTED), 0.3)
    (tmp_path / "gate").touch()
    operator.resume("default")
    assert handle.result(timeout=BOUND) == "done"
    assert (handle.status().attempt, handle.status().redeliveries) == (0, 0)


@pytest.mark.slow
def test_deliveries_at_hand_of_a_paused_queue_go_back_uncounted(app: Stem, operator: Operator, begin: Begin) -> None:
    """A seat is taken, and more wait at the engine for theirs."""
    short = app.task(name="short", isolate=True)(_nothing)
    begin(app, concurrency=1)
    for handle in [short.enqueue() for _ in range(100)]:  # now it fetches ahead
        handle.result(timeout=BOUND)
    waiting = app.enqueue_many([short.s() for _ in range(2000)])
    operator.pause("default")
    left = eventually(lambda: not (of := states(waiting))["running"] and of, within=BOUND)
    assert left["queued"], "all had ended before the pause: the test says nothing"
    throughout(lambda: states(waiting) == left, 0.3)
    operator.resume("default")
    for handle in waiting:
        handle.result(timeout=BOUND)
        assert (handle.status().attempt, handle.status().redeliveries) == (0, 0)


def states(handles: list[Any]) -> Counter[str]:
    return Counter(str(handle.status().state) for handle in handles)


def _nothing() -> None: ...


def test_a_paused_task_is_put_aside_and_others_of_its_queue_go_on(app: Stem, operator: Operator, tasks: Tasks, begin: Begin) -> None:
    also = app.task(name="also")(_also)
    begin(app, concurrency=2)
    operator.pause("quick", task=True)
    held = [tasks.quick.enqueue() for _ in range(10)]
    assert also.enqueue().result(timeout=BOUND) == "also"
    eventually(lambda: all(handle.status().reason == "paused" for handle in held), within=BOUND)
    assert {(handle.status().state, handle.status().attempt) for handle in held} == {("queued", 0)}
    operator.resume("quick", task=True)
    for handle in held:
        assert handle.result(timeout=BOUND) == "done"
        assert (handle.status().attempt, handle.status().redeliveries) == (0, 0)


async def _also() -> str:
    return "also"


def test_a_burst_waits_for_nothing_that_is_paused(app: Stem, operator: Operator, tasks: Tasks, begin: Begin) -> None:
    operator.broker.pause("default")
    operator.broker.pause("other", task=True)
    held = [tasks.quick.enqueue(), tasks.other.enqueue()]
    worker, _ = begin(app, burst=True)
    worker.join(BOUND)
    assert [handle.status().state for handle in held] == ["queued", "queued"]


def test_a_burst_whose_queues_are_all_paused_ends(app: Stem, operator: Operator, tasks: Tasks, begin: Begin) -> None:
    operator.broker.pause("default")
    tasks.quick.enqueue()
    worker, _ = begin(app, queues=["default"], burst=True)
    worker.join(BOUND)


def test_a_burst_does_not_wait_for_a_retry_in_a_queue_that_was_paused(app: Stem, operator: Operator, begin: Begin) -> None:
    flaky = app.task(name="flaky", isolate=True, max_retries=1)(handlers.flaky)
    handle = flaky.enqueue(1)

    class InAnHour:
        def next_delay(self, attempt: int, error: object) -> float:
            operator_thread.start()
            return 3600.0

    operator_thread = threading.Thread(target=lambda: Operator(app).pause("default"))
    worker, recorder = begin(app, burst=True, retry_strategy=InAnHour())
    recorder.wait(WorkerEventType.RETRIED, handle.id)
    worker.join(BOUND)
    operator_thread.join()
    assert handle.status().state == "retried"


# -- commands ------------------------------------------------------------------------------------------------------------------------------


def test_a_worker_gets_more_seats_and_fewer_while_it_runs(app: Stem, operator: Operator, tasks: Tasks, begin: Begin) -> None:
    worker, _ = begin(app, concurrency=1)
    first = [tasks.long.enqueue(tasks.gate) for _ in range(3)]
    running(first[0])
    assert {handle.status().state for handle in first[1:]} == {"queued"}
    assert operator.order(worker.id, "concurrency", 3).done
    for handle in first:
        running(handle)
    eventually(lambda: operator.worker(worker.id).seats == 3, within=BOUND)
    assert operator.order(worker.id, "concurrency", 1).done
    assert {handle.status().state for handle in first} == {"running"}, "what runs ends"
    more = [tasks.long.enqueue(tasks.gate) for _ in range(3)]
    tasks.open()
    for handle in [*first, *more]:
        assert handle.result(timeout=BOUND) == "done"
    eventually(lambda: operator.worker(worker.id).seats == 1 and len(operator.worker(worker.id).isolates) <= 1, within=BOUND)


def test_no_more_run_than_there_are_seats_after_they_became_fewer(app: Stem, operator: Operator, begin: Begin) -> None:
    now, most, gate = [0], [0], threading.Event()

    @app.task(name="count")
    async def count() -> None:
        now[0] += 1
        most[0] = max(most[0], now[0])
        while not gate.is_set():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.001)
        now[0] -= 1

    worker, _ = begin(app, concurrency=4)
    handles = [count.enqueue() for _ in range(40)]
    eventually(lambda: now[0] == 4, within=BOUND)
    assert operator.order(worker.id, "concurrency", 2).done
    gate.set()
    eventually(lambda: now[0] <= 2, within=BOUND)
    most[0] = 0
    for handle in handles:
        handle.result(timeout=BOUND)
    assert most[0] <= 2


def test_a_drained_worker_finishes_takes_nothing_and_stays(app: Stem, operator: Operator, tasks: Tasks, begin: Begin) -> None:
    worker, _ = begin(app, concurrency=2)
    long = tasks.long.enqueue(tasks.gate)
    running(long)
    assert operator.order(worker.id, "drain").done
    eventually(lambda: operator.worker(worker.id).draining, within=BOUND)
    waiting = tasks.quick.enqueue()
    tasks.open()
    assert long.result(timeout=BOUND) == "done"
    throughout(lambda: waiting.status().state == "queued", 0.3)
    assert operator.order(worker.id, "drain", False).done
    assert waiting.result(timeout=BOUND) == "done"
    eventually(lambda: not operator.worker(worker.id).draining, within=BOUND)


def test_resume_ends_a_drain_too(app: Stem, operator: Operator, tasks: Tasks, begin: Begin) -> None:
    worker, _ = begin(app)
    assert operator.order(worker.id, "drain", "on").done
    waiting = tasks.quick.enqueue()
    assert operator.order(worker.id, "resume").done
    assert waiting.result(timeout=BOUND) == "done"


def test_an_embedded_worker_stops_as_its_own_stop_does(app: Stem, operator: Operator, tasks: Tasks, begin: Begin) -> None:
    worker, _ = begin(app)
    long = tasks.long.enqueue(tasks.gate)
    running(long)
    assert operator.order(worker.id, "stop").done
    tasks.open()
    worker.join(BOUND)
    assert long.status().state == "succeeded"


def test_a_worker_that_stops_is_seen_to_take_nothing_new(app: Stem, operator: Operator, tasks: Tasks, begin: Begin) -> None:
    worker, _ = begin(app)
    long = tasks.long.enqueue(tasks.gate)
    running(long)
    assert not operator.worker(worker.id).draining
    worker.stop()
    eventually(lambda: operator.worker(worker.id).draining, within=BOUND)
    tasks.open()
    worker.join(BOUND)


def test_the_level_of_the_log_changes_and_back(app: Stem, operator: Operator, tasks: Tasks, begin: Begin, caplog: Any) -> None:
    logger = logging.getLogger("stem_iso")
    before = logger.level
    try:
        worker, _ = begin(app)
        assert operator.order(worker.id, "log-level", "debug").done
        quick = tasks.quick.enqueue()
        quick.result(timeout=BOUND)
        eventually(lambda: f"{quick.id} completed" in caplog.text, within=BOUND)
        assert operator.order(worker.id, "log-level", "ERROR").done
        assert logger.level == logging.ERROR
        later = tasks.quick.enqueue()
        later.result(timeout=BOUND)
        assert operator.order(worker.id, "log-level", "info").done
        assert later.id not in caplog.text
    finally:
        logger.setLevel(before)


def test_a_killed_isolate_ends_its_task_with_a_reason_of_its_own(app: Stem, operator: Operator, tasks: Tasks, begin: Begin) -> None:
    worker, _ = begin(app)
    long = tasks.long.enqueue(tasks.gate)
    running(long)
    [isolate] = eventually(lambda: [each for each in operator.worker(worker.id).isolates if each.task_id == long.id], within=BOUND)
    assert operator.order(worker.id, "kill", isolate.pid).done
    eventually(lambda: long.status().state == "failed", within=BOUND)
    status = long.status()
    assert status.reason == "crashed" and "killed by an operator" in status.error.message and status.error.signal == "SIGKILL"
    assert process_tree.is_dead(isolate.pid)
    eventually(lambda: operator.counted("long").get("crashed") == 1, within=BOUND)


def test_a_killed_task_is_tried_again_as_its_policy_says(app: Stem, operator: Operator, tmp_path: Path, begin: Begin) -> None:
    again = app.task(name="again", isolate=True, max_retries=1)(handlers.count_and_wait)
    worker, recorder = begin(app, retry_strategy=QuickRetries())
    handle = again.enqueue(str(tmp_path / "runs"), str(tmp_path / "gate"))
    running(handle)
    pid = eventually(lambda: [each.pid for each in operator.worker(worker.id).isolates if each.state == "busy"], within=BOUND)[0]
    assert operator.order(worker.id, "kill", str(pid)).done
    assert "killed by an operator" in recorder.wait(WorkerEventType.RETRIED, handle.id).error.message
    (tmp_path / "gate").touch()
    assert handle.result(timeout=BOUND) == 2


def test_only_isolates_of_this_worker_are_killed(app: Stem, operator: Operator, tasks: Tasks, begin: Begin) -> None:
    worker, _ = begin(app)
    long = tasks.long.enqueue(tasks.gate)
    running(long)
    pid = operator.worker(worker.id).isolates[0].pid if operator.worker(worker.id).isolates else 0
    reply = operator.order(worker.id, "kill", os.getpid())
    assert not reply.done and f"no isolate {os.getpid()}" in reply.text and (not pid or str(pid) in reply.text)
    tasks.open()
    assert long.result(timeout=BOUND) == "done"


def test_the_stack_of_what_runs_comes_as_the_reply(app: Stem, operator: Operator, begin: Begin) -> None:
    spin = app.task(name="spin", isolate=True)(handlers.spin)
    worker, _ = begin(app, spares=1)
    spin.enqueue()
    busy = eventually(lambda: [each for each in operator.worker(worker.id).isolates if each.state == "busy"], within=BOUND)[0]

    # A busy isolate may still be importing its task: its stack is that of the import then.
    def spinning() -> Any:
        reply = operator.order(worker.id, "stack", busy.pid)
        return reply.done and "in spin" in reply.text and reply.text

    assert "handlers.py" in eventually(spinning, within=BOUND)
    spare = eventually(lambda: [each for each in operator.worker(worker.id).isolates if each.state == "spare"], within=BOUND)[0]
    refused = operator.order(worker.id, "stack", spare.pid)
    assert not refused.done and f"{busy.pid} (busy)" in refused.text


def test_a_worker_with_inline_handlers_alone_has_no_isolates(app: Stem, operator: Operator, begin: Begin) -> None:
    app.task(name="quick")(_quick)
    worker, _ = begin(app)
    for action in ("kill", "stack"):
        reply = operator.order(worker.id, action, 4711)
        assert not reply.done and "no isolates" in reply.text


@pytest.mark.parametrize(
    ("action", "value", "says"),
    [
        ("concurrency", 0, "a number of seats, 1 to 512"),
        ("concurrency", "many", "'many' must be a number"),
        ("drain", 3, '"off", to end it'),
        ("log-level", "loud", "debug, info, warning, error, critical"),
        ("kill", -1, "the pid of one of"),
        ("stack", None, "the pid of one of"),
        ("concurency", 3, "did you mean 'concurrency'?"),
        ("zzz", None, "known are concurrency"),
    ],
)
def test_what_makes_no_sense_is_answered_with_the_way_out(tmp_path: Path, begin: Begin, action: str, value: Any, says: str) -> None:
    with closing(Stem("memory://")) as app:
        app.task(name="quick")(_quick)
        worker, _ = begin(app)
        reply = Operator(app).order(worker.id, action, value)
        assert not reply.done and reply.worker_id == worker.id and says in reply.text, reply.text


def test_a_command_for_all_is_answered_by_each_once(app: Stem, operator: Operator, tasks: Tasks, begin: Begin) -> None:
    workers = [begin(app)[0] for _ in range(3)]
    command = operator.send("*", "concurrency", 2)
    replies = operator.reply(command, 3)
    assert {reply.worker_id for reply in replies} == {worker.id for worker in workers}
    assert all(reply.done for reply in replies)


def test_a_command_of_before_its_start_is_not_carried_out(app: Stem, operator: Operator, tasks: Tasks, begin: Begin) -> None:
    operator.send("*", "drain")
    worker, _ = begin(app)
    assert operator.order(worker.id, "pauses").done
    assert not operator.worker(worker.id).draining
    assert tasks.quick.enqueue().result(timeout=BOUND) == "done"


# -- what others see -----------------------------------------------------------------------------------------------------------------------


def test_the_record_shows_each_isolate_with_its_task_and_limits(app: Stem, operator: Operator, tmp_path: Path, begin: Begin) -> None:
    wait = app.task(name="wait", isolate=True, soft_time_limit=50, hard_time_limit=60, memory_limit="1GiB")(handlers.say_and_wait)
    worker, _ = begin(app, spares=1)
    handle = wait.enqueue(str(tmp_path / "gate"))
    running(handle)

    def shown() -> Any:
        isolates = operator.worker(worker.id).isolates
        return sorted(each.state for each in isolates) == ["busy", "spare"] and [each for each in isolates if each.state == "busy"]

    [busy] = eventually(shown, within=BOUND)
    assert (busy.task_id, busy.name, busy.soft_time_limit, busy.hard_time_limit) == (handle.id, "wait", 50.0, 60.0)
    assert busy.memory_limit == 1 << 30 and 1 << 20 < busy.memory < 1 << 30
    assert abs(busy.started_at - handle.status().started_at.timestamp()) < 5
    (tmp_path / "gate").touch()
    handle.result(timeout=BOUND)
    eventually(lambda: all(each.state == "spare" for each in operator.worker(worker.id).isolates), within=BOUND)


def test_nothing_is_paused_at_first(operator: Operator) -> None:
    assert operator.broker.paused() == Pauses()
