"""Delayed envelopes, and how a waiting worker is woken."""

from __future__ import annotations

import select
import threading
import time

from stem_iso.brokers.base import Broker, WorkWatch
from stem_iso.task.settlement import GiveBack
from stem_iso.testing.assertions import eventually, throughout
from stem_iso.testing.contract.steps import Steps, counts, envelope, ids, next_attempt, settle, take, take_one

LATE = 4.0  # seconds; the rule says 0.05 for an idle machine, which the benchmark measures, and tests run on busy ones


def wakes(watch: WorkWatch, within: float = 1.0) -> bool:
    """What an idle worker does: sleep on the descriptor, look when it is readable or the interval is over."""
    poll = select.poll()
    poll.register(watch.fileno(), select.POLLIN)
    deadline = time.monotonic() + within
    while (left := deadline - time.monotonic()) > 0:
        poll.poll(min(left, watch.interval) * 1000)
        if watch.changed():
            return True
    return False


def quiet(watch: WorkWatch) -> None:
    while watch.changed():
        pass


class Timing(Steps):
    def test_a_delayed_one_is_hidden_until_due_and_then_delivered(self, broker: Broker) -> None:
        due = time.time() + 0.3
        sent, later = envelope(not_before=due), envelope(not_before=due + 3600)
        broker.publish([sent, later])
        assert ids(eventually(lambda: take(broker))) == [sent.id]
        assert due <= time.time() < due + LATE
        assert counts(broker) == (0, 1, 1, 0)

    def test_a_due_time_in_the_past_is_no_delay(self, broker: Broker) -> None:
        sent = envelope(not_before=time.time() - 60)
        broker.publish([sent])
        assert counts(broker) == (1, 0, 0, 0)
        assert ids(take(broker)) == [sent.id]

    def test_next_due_is_the_earliest_of_the_queues_asked_for(self, broker: Broker) -> None:
        now = time.time()
        broker.publish([envelope(not_before=now + 100), envelope(not_before=now + 50), envelope(queue="b", not_before=now + 10)])
        due = broker.exchange("alpha", [], ["default"], 10).next_due
        assert due is not None and 45 < due <= 50
        due = broker.exchange("alpha", [], ["default", "b"], 10).next_due
        assert due is not None and 5 < due <= 10
        assert broker.exchange("alpha", [], ["c"], 10).next_due is None

    def test_one_that_has_come_due_counts_as_queued(self, broker: Broker) -> None:
        broker.publish([envelope(not_before=time.time() + 0.05)])
        eventually(lambda: counts(broker) == (1, 0, 0, 0))

    def test_priority_decides_among_those_that_come_due_together(self, broker: Broker) -> None:
        due = time.time() + 0.1
        sent = [envelope(not_before=due, priority=1), envelope(not_before=due, priority=9)]
        broker.publish(sent)
        eventually(lambda: counts(broker) == (2, 0, 0, 0))
        assert ids(take(broker)) == [sent[1].id, sent[0].id]

    def test_a_delayed_retry_and_a_delayed_give_back_are_hidden_until_due(self, broker: Broker) -> None:
        first, second = envelope(), envelope()
        broker.publish([first, second])
        one, two = take(broker)
        due = time.time() + 0.2
        settle(broker, one, next_attempt(first, not_before=due))
        settle(broker, two, GiveBack(0.2))
        got = [*ids(eventually(lambda: take(broker, 1))), *ids(eventually(lambda: take(broker, 1)))]
        assert sorted(got) == sorted([first.id, second.id])
        assert time.time() >= due

    def test_a_publish_wakes_an_idle_worker(self, broker: Broker, other: Broker) -> None:
        watch = broker.watch("alpha", ["default"])
        take(broker)
        quiet(watch)
        sent = envelope()
        producer = threading.Thread(target=other.publish, args=([sent],))
        producer.start()
        assert wakes(watch)
        assert ids(eventually(lambda: take(broker))) == [sent.id]
        producer.join()
        watch.close()

    def test_an_earlier_one_that_is_enqueued_later_wakes_too(self, broker: Broker, other: Broker) -> None:
        other.publish([envelope(not_before=time.time() + 100)])
        watch = broker.watch("alpha", ["default"])
        assert broker.exchange("alpha", [], ["default"], 1).next_due is not None
        quiet(watch)
        other.publish([envelope(not_before=time.time() + 10)])
        assert wakes(watch)
        due = broker.exchange("alpha", [], ["default"], 1).next_due
        assert due is not None and due <= 10
        watch.close()

    def test_a_revoke_wakes_the_holder(self, broker: Broker, other: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        take_one(broker)
        watch = broker.watch("alpha", ["default"])
        quiet(watch)
        other.revoke(sent.id, terminate=True)
        assert wakes(watch)
        assert len(broker.revocations("alpha")) == 1
        watch.close()

    def test_what_another_worker_gives_back_wakes(self, broker: Broker, other: Broker) -> None:
        broker.publish([envelope()])
        held = take_one(other, "beta")
        watch = broker.watch("alpha", ["default"])
        quiet(watch)
        settle(other, held, GiveBack())
        assert wakes(watch)
        assert len(take(broker)) == 1
        watch.close()

    def test_nothing_happens_nothing_rings(self, broker: Broker) -> None:
        watch = broker.watch("alpha", ["default"])
        quiet(watch)
        throughout(lambda: not watch.changed(), 0.1)
        watch.close()
