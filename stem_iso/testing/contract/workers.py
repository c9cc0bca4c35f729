"""Workers that show themselves, events for other processes, and a store that ends as small as it began."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

from msgspec.structs import replace

from stem_iso.brokers.base import Broker, WorkerInfo
from stem_iso.outcome import TaskState
from stem_iso.task.settlement import Finish
from stem_iso.testing.assertions import eventually
from stem_iso.testing.contract.steps import ALL, SUCCESS, Steps, envelope, ids, settle, status, take, take_one

CLOCKS_DIFFER = 1.0  # seconds that a wall clock is slewed at most meanwhile


def info(*running: str) -> WorkerInfo:
    return WorkerInfo(id="host:1", boot="alpha", hostname="host", pid=1, queues=["default"], seats=2, spares=1, running=list(running))


class Gossip(Steps):
    def test_a_worker_is_shown_from_its_first_beat_to_its_goodbye(self, broker: Broker, other: Broker) -> None:
        broker.beat(info())
        (shown,) = other.workers()
        assert (shown.id, shown.boot, shown.seats, shown.queues) == ("host:1", "alpha", 2, ["default"])
        assert shown.seen_at > 0
        broker.beat(info("task-1"))
        assert [one.running for one in other.workers()] == [["task-1"]]
        broker.remove_worker("host:1")
        assert other.workers() == []

    def test_a_worker_is_silent_by_the_clock_of_the_store_alone(self, broker: Broker, other: Broker) -> None:
        began = time.monotonic()
        broker.beat(replace(info(), seen_at=0.0, silent_for=1e6))
        (first,) = other.workers()
        assert 0 <= first.silent_for <= time.monotonic() - began + CLOCKS_DIFFER
        eventually(lambda: other.workers()[0].silent_for > first.silent_for)

    def test_neighbours_are_those_of_the_machine_until_their_goodbye(self, broker: Broker, other: Broker) -> None:
        here, away, older = (replace(info(), id=id, boot=id, machine=where) for id, where in (("a", "m:1"), ("b", "m:2"), ("c", "")))
        here = replace(here, processes=[(1, 7), (2, 9)])
        for each in (here, away, older):
            broker.beat(each)
        assert [(each.boot, each.processes) for each in other.neighbours("m:1")] == [("a", [(1, 7), (2, 9)])]
        assert other.neighbours("m:3") == []
        broker.remove_worker("a")
        assert other.neighbours("m:1") == []

    def test_a_dead_worker_is_unregistered_and_its_successor_of_the_same_id_is_not(self, broker: Broker, other: Broker) -> None:
        dead, alive = (replace(info(), boot=boot, machine="m:1") for boot in ("before", "after"))
        broker.beat(dead)
        other.beat(alive)
        other.remove_dead_worker(dead)
        assert [each.boot for each in other.neighbours("m:1")] == ["after"]
        assert [each.boot for each in other.workers()] == ["after"]
        other.remove_dead_worker(alive)
        assert other.neighbours("m:1") == [] and other.workers() == []

    def test_a_status_names_the_worker(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        broker.beat(info())
        delivery = take_one(broker)
        assert status(broker, sent.id).worker_id == "host:1"
        settle(broker, delivery, SUCCESS)
        assert status(broker, sent.id).worker_id == "host:1"

    def test_nobody_listens_nothing_is_kept(self, broker: Broker, other: Broker) -> None:
        assert broker.listening() is False
        broker.emit([b"lost"])
        assert list(other.listen(timeout=0.05)) == []

    def test_a_listener_gets_what_is_emitted_from_then_on(self, broker: Broker, other: Broker) -> None:
        received: list[bytes] = []
        stream = other.listen(timeout=5)
        eventually(broker.listening)
        listener = threading.Thread(target=lambda: received.extend(next(stream) for _ in range(3)))
        listener.start()
        broker.emit([b"one", b"two"])
        broker.emit([b"three"])
        listener.join(5)
        assert received == [b"one", b"two", b"three"]
        assert isinstance(stream, Generator)
        stream.close()
        eventually(lambda: not broker.listening())

    def test_listening_ends_after_a_silence(self, broker: Broker) -> None:
        assert list(broker.listen(timeout=0.05)) == []

    def test_two_listeners_get_the_same(self, broker: Broker, other: Broker) -> None:
        streams = [broker.listen(timeout=2), other.listen(timeout=2)]
        eventually(broker.listening)
        broker.emit([b"one"])
        assert [next(stream) for stream in streams] == [b"one", b"one"]

    def test_nothing_grows_for_ever(self, broker: Broker) -> None:
        sent: list[str] = []
        for _ in range(3):
            broker.publish([envelope(lock=f"lock-{number}") for number in range(100)])
            deliveries = take(broker, 100)
            for delivery in deliveries:
                settle(broker, delivery, Finish(TaskState.SUCCEEDED, result=b"\x01", ttl=0.01))
            sent += ids(deliveries)
        eventually(lambda: broker.sweep() == 0 and broker.status(sent) == [None] * 300)
        assert broker.queues() == [] and broker.dead_letters(ALL) == []
        assert broker.publish([envelope(id="after", lock="lock-1")]) == ["after"]
