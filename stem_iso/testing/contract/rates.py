"""Rates: so many starts in any period, wherever it is laid, and none of them later than it may be."""

from __future__ import annotations

import time

from stem_iso.brokers.base import Broker
from stem_iso.task.rate_limit import Rate, TaskLimits
from stem_iso.testing.assertions import eventually, throughout
from stem_iso.testing.contract.limits import ONE, TAKEN, begin, begun, publish
from stem_iso.testing.contract.steps import SUCCESS, Steps, settle, status, take, take_one

PERIOD = 0.3
LATE = 5.0  # seconds, of a machine that is busy


class Rates(Steps):
    def test_in_no_period_begin_more_than_so_many(self, broker: Broker, other: Broker) -> None:
        three = TaskLimits("thumbs.make", Rate(3, PERIOD))
        publish(broker, 8)
        began: list[tuple[float, float]] = []  # no sooner, no later

        def begin_all() -> bool:
            for handle, boot in ((broker, "alpha"), (other, "beta")):
                before = time.monotonic()
                for one in begin(handle, three, boot):
                    began.append((before, time.monotonic()))
                    settle(handle, one, SUCCESS)  # that it has ended makes no room
            return len(began) == 8

        eventually(begin_all)
        gaps = [later - earlier for (earlier, _), (_, later) in zip(began, began[3:], strict=False)]
        assert min(gaps) > PERIOD * 0.95  # within a period, four of them would be milliseconds apart
        assert began[-1][1] - began[0][0] < 2 * PERIOD + LATE

    def test_what_is_refused_comes_back_when_it_may_begin(self, broker: Broker) -> None:
        limits = TaskLimits("thumbs.make", Rate(1, PERIOD))
        sent = publish(broker, 2)
        first, second = take(broker)
        began = time.monotonic()
        assert broker.acquire(first.receipt, limits) == TAKEN
        assert 0 < broker.acquire(second.receipt, limits).wait <= PERIOD + 0.01
        assert status(broker, sent[1].id).reason == "rate-limit"
        due = broker.exchange("alpha", [], ["default"], 5).next_due
        assert due is not None and 0 < due <= PERIOD + 0.01
        assert begun(broker, limits).receipt.id == sent[1].id
        assert PERIOD * 0.9 < time.monotonic() - began < PERIOD + LATE

    def test_the_line_of_a_rate_moves_up_when_one_leaves_it(self, broker: Broker) -> None:
        limits = TaskLimits("thumbs.make", Rate(1, PERIOD))
        publish(broker, 1)
        begun(broker, limits)
        sent = publish(broker, 3)
        assert begin(broker, limits) == []
        for one in sent[:2]:
            broker.revoke(one.id)
        began = time.monotonic()
        assert begun(broker, limits).receipt.id == sent[2].id
        assert time.monotonic() - began < PERIOD + LATE

    def test_a_refusal_spends_nothing_of_either(self, broker: Broker) -> None:
        both = TaskLimits("thumbs.make", Rate(2, 60.0), 1)
        publish(broker, 5)
        holder = begun(broker, both)  # refused for want of a place: four times, and none of them counts as a start
        settle(broker, holder, SUCCESS)
        settle(broker, begun(broker, both), SUCCESS)
        throughout(lambda: not begin(broker, both), 0.05)
        assert len(begin(broker, ONE)) == 0  # they wait for the rate now …
        publish(broker, 1, priority=9)
        assert broker.acquire(take_one(broker).receipt, ONE) == TAKEN  # … and hold no place meanwhile
