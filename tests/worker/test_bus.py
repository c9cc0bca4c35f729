"""Listeners of every kind, and the worker that does not care."""

from __future__ import annotations

import asyncio
import sys
import threading

from stem_iso.events import CompletedEvent, ErrorEvent, StartedEvent, WorkerEventType
from stem_iso.testing import eventually
from stem_iso.worker.reporting.bus import Bus


def completed(number: int) -> CompletedEvent:
    return CompletedEvent(at=0.0, worker_id="w", task_id=str(number), name="n", queue="q", run=0, attempt=0, elapsed=0.0)


def test_events_arrive_in_order_at_every_listener_of_their_type_and_at_no_other():
    bus = Bus("w")
    one: list[str] = []
    every: list[str] = []
    other: list[object] = []
    bus.on(WorkerEventType.COMPLETED, lambda event: one.append(event.task_id))
    bus.on(None, lambda event: every.append(event.task_id))
    bus.on(WorkerEventType.FAILED, other.append)
    for number in range(100):
        bus.publish(completed(number))
    bus.close()
    assert one == every == [str(number) for number in range(100)]
    assert other == []


def test_on_returns_its_listener_so_that_it_decorates():
    bus = Bus("w")

    @lambda listener: bus.on(WorkerEventType.COMPLETED, listener)
    def listener(event):
        received.append(event)

    received: list[object] = []
    bus.publish(completed(1))
    bus.close()
    assert callable(listener) and len(received) == 1


def test_nobody_listening_means_that_nothing_is_wanted():
    bus = Bus("w")
    assert not any(bus.wants(type) for type in WorkerEventType)
    listener = bus.on(WorkerEventType.STARTED, print)
    assert bus.wants(WorkerEventType.STARTED) and not bus.wants(WorkerEventType.COMPLETED)
    bus.off(listener)
    assert not bus.wants(WorkerEventType.STARTED)


def test_a_listener_that_raises_is_reported_in_an_error_event_and_the_others_get_all():
    bus = Bus("w")
    received: list[object] = []
    errors: list[ErrorEvent] = []
    bus.on(WorkerEventType.COMPLETED, lambda event: 1 / 0 if event.task_id == "1" else sys.exit("enough"))
    bus.on(WorkerEventType.COMPLETED, received.append)
    bus.on(WorkerEventType.ERROR, errors.append)
    bus.publish(completed(1))
    bus.publish(completed(2))
    bus.publish(StartedEvent(at=0.0, worker_id="w", task_id="1", name="n", queue="q", run=0, attempt=0))
    eventually(lambda: len(errors) == 2)
    bus.close()
    assert len(received) == 2
    assert "ZeroDivisionError" in errors[0].traceback and "SystemExit: enough" in errors[1].traceback


def test_a_listener_of_errors_that_raises_does_not_go_on_for_ever():
    bus = Bus("w")
    calls: list[object] = []

    def broken(event):
        calls.append(event)
        raise RuntimeError

    bus.on(WorkerEventType.ERROR, broken)
    bus.publish(ErrorEvent(at=0.0, worker_id="w", message="first"))
    bus.close()
    assert len(calls) == 1


def test_a_listener_that_lags_loses_events_gets_their_count_and_holds_up_nobody():
    bus = Bus("w", capacity=10)
    release, entered, last = threading.Event(), threading.Event(), threading.Event()
    received: list[str] = []
    lost: list[ErrorEvent] = []

    def slow(event):
        entered.set()
        release.wait(30)
        received.append(event.task_id)

    bus.on(WorkerEventType.COMPLETED, slow)
    bus.on(WorkerEventType.ERROR, lambda event: (lost.append(event), last.set()))
    bus.publish(completed(0))
    assert entered.wait(10)
    for number in range(1, 1001):
        bus.publish(completed(number))
    release.set()
    assert last.wait(10)
    bus.close()
    assert received == [str(number) for number in range(11)]
    assert lost[0].message.startswith("990 events were dropped")


def test_a_listener_that_lags_for_long_is_reported_now_and_then_with_every_loss():
    bus, received = Bus("w", capacity=10), list[object]()
    lost: list[ErrorEvent] = []

    def slow(event):
        received.append(event)
        for number in range(20):
            if len(received) < 50:
                bus.publish(completed(number))

    bus.on(WorkerEventType.COMPLETED, slow)
    bus.on(WorkerEventType.ERROR, lost.append)
    bus.publish(completed(0))
    eventually(lambda: len(received) >= 59)
    bus.close()
    counts = [int(event.message.split()[0]) for event in lost]
    assert len(counts) <= 3 and sum(counts) + len(received) == 1 + 49 * 20


def test_a_listener_that_hangs_does_not_hang_the_end():
    bus = Bus("w")
    release = threading.Event()
    bus.on(WorkerEventType.COMPLETED, lambda event: release.wait(60))
    bus.publish(completed(1))
    closer = threading.Thread(target=bus.close, args=(0.05,))
    closer.start()
    closer.join(10)
    ended = not closer.is_alive()
    release.set()
    assert ended


def test_a_stream_has_all_events_since_it_was_made_and_ends_with_the_bus():
    bus = Bus("w")
    stream = bus.stream()
    bus.publish(completed(1))

    async def read() -> list[str]:
        seen = []
        async for event in stream:
            seen.append(event.task_id)
            if len(seen) == 1:
                threading.Thread(target=lambda: (bus.publish(completed(2)), bus.close())).start()
        return seen

    assert asyncio.run(asyncio.wait_for(read(), 20)) == ["1", "2"]


def test_a_stream_that_is_closed_is_no_listener_any_more():
    bus = Bus("w")
    stream = bus.stream()
    asyncio.run(stream.aclose())
    assert not bus.wants(WorkerEventType.COMPLETED)


def test_signals_are_emitted_in_line_with_events_and_start_the_thread_by_themselves():
    bus = Bus("w")
    received: list[object] = []
    bus.emit((lambda value: 1 / 0, received.append), "one")
    eventually(lambda: received)
    bus.on(WorkerEventType.COMPLETED, lambda event: received.append(event.task_id))
    bus.publish(completed(1))
    bus.emit((received.append,), "two")
    bus.close()
    assert received == ["one", "1", "two"]


def test_signals_past_the_room_there_is_are_lost_as_events_are():
    bus = Bus("w", capacity=10)
    release, entered = threading.Event(), threading.Event()
    received: list[object] = []
    lost: list[ErrorEvent] = []
    bus.on(WorkerEventType.ERROR, lost.append)
    bus.emit((lambda value: (entered.set(), release.wait(30)),), 0)
    assert entered.wait(10)
    for number in range(100):
        bus.emit((received.append,), number)
    release.set()
    eventually(lambda: lost)
    bus.close()
    assert received == list(range(10))
    assert lost[0].message.startswith("90 events")
