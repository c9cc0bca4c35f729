"""Events of real workers: their order, their listeners in this process and in others, and the log."""

from __future__ import annotations

import asyncio
import json
import logging
import threading

import pytest

from stem_iso import InvalidOptions, Stem, Worker, WorkerEventType
from stem_iso.testing import eventually
from stem_iso.worker.reporting.log import JsonFormatter, TextFormatter
from tests.worker import handlers
from tests.worker.conftest import Begin, QuickRetries


def test_a_listener_that_raises_or_lags_harms_no_task(app: Stem, begin: Begin):
    add = app.task(name="add", isolate=True)(handlers.add)
    worker, recorder = begin(app)
    release = threading.Event()
    worker.on(WorkerEventType.STARTED, lambda event: 1 / 0)
    worker.on(WorkerEventType.COMPLETED, lambda event: release.wait(60))
    handles = [add.enqueue(number) for number in range(5)]
    assert [handle.result(timeout=30) for handle in handles] == [1, 2, 3, 4, 5]
    release.set()
    recorder.wait(WorkerEventType.COMPLETED, count=5)
    assert "ZeroDivisionError" in recorder.wait(WorkerEventType.ERROR).traceback


def test_by_time_a_task_starts_before_what_it_logs_and_ends_after_it(app: Stem, caplog: pytest.LogCaptureFixture):
    """The log hears of the start late: what listens before it is slow."""
    logged = threading.Event()

    @app.task(name="work")
    def work() -> None:
        logging.getLogger("shop").info("charged")
        logged.set()

    caplog.set_level(logging.INFO)
    work.enqueue()
    worker = Worker(app, concurrency=1, burst=True)
    worker.on(WorkerEventType.STARTED, lambda event: logged.wait(60))
    worker.run()
    found = [(record.created, getattr(record, "event", record.message)) for record in caplog.records if hasattr(record, "task_id")]
    found += [(record.created, record.message) for record in caplog.records if record.message == "charged"]
    assert [what for _, what in sorted(dict.fromkeys(found))] == ["started", "charged", "completed"]
    started = next(record for record in caplog.records if getattr(record, "event", "") == "started")
    assert int(started.msecs) == int(started.created % 1 * 1000)


def test_what_is_no_type_of_events_is_refused_with_the_types_that_are(app: Stem):
    with pytest.raises(InvalidOptions, match=r"'timeout'.*WorkerEventType\.TIMEOUT"):
        Worker(app).on("timeout", print)


def test_the_iterator_has_everything_in_order_and_ends_with_the_worker(app: Stem):
    flaky = app.task(name="flaky", isolate=True, max_retries=1, retry_strategy=QuickRetries())(handlers.flaky)

    async def main() -> list[str]:
        worker = Worker(app, concurrency=1, burst=True)
        events = worker.events()
        handle = await flaky.aenqueue(until=1)
        serving = asyncio.create_task(worker.serve())
        types = [event.type.value async for event in events if getattr(event, "task_id", None) == handle.id]
        await serving
        return types

    assert asyncio.run(asyncio.wait_for(main(), 60)) == ["started", "retried", "started", "completed"]


def test_another_process_gets_the_events_while_it_listens(app: Stem, begin: Begin):
    add = app.task(name="add", isolate=True)(handlers.add)
    begin(app)
    elsewhere = Stem(broker=app.broker)
    received: list[str] = []

    def listen() -> None:
        for event in elsewhere.events(timeout=20):
            received.append(f"{event.type.value} {getattr(event, 'task_id', '')}")
            if event.type is WorkerEventType.COMPLETED and f"started {event.task_id}" in received:  # else it came in the middle of this one
                return

    listener = threading.Thread(target=listen)
    listener.start()
    eventually(lambda: add.enqueue(1).result(timeout=30) and not listener.is_alive(), 20)
    assert received[-1].startswith("completed ")


def test_isolates_report_their_life(app: Stem, begin: Begin):
    add = app.task(name="add", isolate=True)(handlers.add)
    _, recorder = begin(app, max_tasks_per_isolate=1, spares=0)
    for number in range(2):
        add.enqueue(number).result(timeout=30)
    eventually(lambda: any(event.action == "recycled" for event in recorder.of(WorkerEventType.ISOLATE)), 20)
    actions = [event.action for event in recorder.of(WorkerEventType.ISOLATE)]
    assert "spawned" in actions and "ready" in actions


def test_what_a_handler_prints_and_logs_is_in_the_log_with_the_id_of_its_task(app: Stem, begin: Begin, caplog):
    caplog.set_level(logging.INFO, logger="stem_iso.worker")
    talk = app.task(name="talk", isolate=True)(handlers.print_and_log)
    worker, _ = begin(app)
    handle = talk.enqueue()
    handle.result(timeout=30)
    worker.stop()
    worker.join(30)
    lines = [record.getMessage() for record in caplog.records if getattr(record, "task_id", None) == handle.id]
    assert f"[talk {handle.id}] printed by a handler" in lines
    assert any(line.endswith("logged by a handler") for line in lines)
    assert any(line.endswith("as loud as the worker's own log") for line in lines)
    assert not any("quieter" in line for line in lines)
    assert any("completed in" in line for line in lines)


@pytest.mark.slow
def test_a_flood_of_lines_within_the_cap_is_all_in_the_log_and_costs_no_event(app: Stem, begin: Begin, caplog):
    caplog.set_level(logging.INFO, logger="stem_iso.worker")
    flood = app.task(name="flood", isolate=True)(handlers.print_lines)
    _, recorder = begin(app)
    handle = flood.enqueue(20_000)
    handle.result(timeout=60)
    eventually(lambda: any("completed" in record.getMessage() for record in caplog.records), 60)
    lines = [record.getMessage() for record in caplog.records if getattr(record, "source", None) == "stdout"]
    assert len(lines) == 20_000 and lines[-1].endswith("line 19999")
    assert not recorder.of(WorkerEventType.ERROR)


def test_the_first_line_says_broker_queues_seats_spares_and_cores(app: Stem, begin: Begin, caplog, tmp_path):
    caplog.set_level(logging.INFO, logger="stem_iso.worker")
    begin(app, concurrency=3, spares=2)
    line = caplog.records[0].getMessage()
    assert f"broker sqlite:///{tmp_path}/jobs.db" in line and "3 seats, 2 spares, cores 0" in line and "queues default" in line


def test_a_silent_logger_costs_no_event(app: Stem, begin: Begin):
    logger = logging.getLogger("stem_iso.worker")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        worker = Worker(app)
        worker.start()
        assert not worker._bus.wants(WorkerEventType.COMPLETED)
        worker.stop()
        worker.join(30)
    finally:
        logger.setLevel(before)


def test_the_formats_are_a_line_for_people_and_an_object_for_programs():
    record = logging.LogRecord("stem_iso.worker", logging.WARNING, __file__, 1, "%s did", ("it",), None)
    record.task_id = "id"
    assert TextFormatter().format(record).endswith(" WARNING it did")
    fields = json.loads(JsonFormatter().format(record))
    assert (fields["level"], fields["message"], fields["task_id"], fields["logger"]) == ("warning", "it did", "id", "stem_iso.worker")


@pytest.mark.parametrize(
    "nonsense",
    [
        {"concurrency": 0},
        {"concurrency": True},
        {"spares": -1},
        {"queues": []},
        {"queues": "default"},
        {"queues": ["a,b"]},
        {"shutdown_timeout": -1},
        {"unregistered_grace": float("nan")},
        {"retry_strategy": object()},
        {"max_tasks_per_isolate": 0},
        {"max_memory_per_isolate": 1},
        {"secrets": "TOKEN"},
    ],
)
def test_nonsense_is_refused_at_birth_with_the_name_of_the_field(app: Stem, nonsense):
    with pytest.raises(InvalidOptions, match=next(iter(nonsense))):
        Worker(app, **nonsense)


def test_the_worker_is_shown_to_others_while_it_lives(app: Stem, begin: Begin):
    worker, _ = begin(app, concurrency=2, id="here-1")
    shown = app.open_broker().workers()
    assert [(each.id, each.seats, each.queues, each.boot) for each in shown] == [("here-1", 2, ["default"], worker.boot)]
    worker.stop()
    worker.join(30)
    assert app.open_broker().workers() == []
    assert "2 seats" in repr(worker)
