"""States of limits: buckets that are in use, who holds them and who stands in their lines."""

from __future__ import annotations

from stem_iso.brokers.base import Broker
from stem_iso.brokers.operations import LimitState
from stem_iso.task.rate_limit import Rate, TaskLimits
from stem_iso.testing.assertions import eventually
from stem_iso.testing.contract.limits import ONE, TAKEN, begin, begun, publish
from stem_iso.testing.contract.steps import SUCCESS, Steps, settle, take, take_one

HOURLY = Rate(2, 3600.0)


class LimitStates(Steps):
    def test_a_bucket_is_shown_with_who_holds_it_and_who_waits(self, broker: Broker, other: Broker) -> None:
        assert broker.limit_states() == []
        publish(broker, 4)
        assert other.limit_states() == []
        held = begun(broker, ONE)
        assert other.limit_states() == [LimitState(bucket="thumbs.make", concurrency=1, running=1, waiting=3)]
        settle(broker, held, SUCCESS)
        held = begun(broker, ONE)
        assert other.limit_states() == [LimitState(bucket="thumbs.make", concurrency=1, running=1, waiting=2)]

    def test_rates_are_shown_as_they_are(self, broker: Broker) -> None:
        publish(broker, 3)
        assert len(begin(broker, TaskLimits("b/1", HOURLY))) == 2
        publish(broker, 2)
        assert len(begin(broker, TaskLimits("a", HOURLY, 1))) == 1
        assert broker.limit_states() == [
            LimitState(bucket="a", count=2, period=3600.0, concurrency=1, running=1, waiting=1),
            LimitState(bucket="b/1", count=2, period=3600.0, running=2, waiting=1),
        ]

    def test_what_leaves_the_line_waits_no_more(self, broker: Broker) -> None:
        publish(broker, 1)
        begun(broker, ONE)
        sent = publish(broker, 3)
        assert begin(broker, ONE) == []
        broker.revoke(sent[0].id)
        eventually(lambda: broker.limit_states()[0].waiting == 2)
        broker.purge("default")
        eventually(lambda: broker.limit_states()[0].waiting == 0)
        assert broker.limit_states()[0].running == 1

    def test_so_many_are_shown_by_name(self, broker: Broker) -> None:
        publish(broker, 5)
        for name, delivery in zip("edcba", take(broker), strict=True):
            assert broker.acquire(delivery.receipt, TaskLimits(name, concurrency=1)) == TAKEN
        assert [each.bucket for each in broker.limit_states()] == list("abcde")
        assert [each.bucket for each in broker.limit_states(3)] == list("abc")

    def test_paused_tasks_are_none(self, broker: Broker) -> None:
        publish(broker, 1)
        broker.pause("thumbs.make", task=True)
        assert broker.hold(take_one(broker).receipt, "thumbs.make").wait > 0
        assert broker.limit_states() == []
