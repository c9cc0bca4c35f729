"""Lines at a limit: what must wait waits as it was, in its order, and is called as soon as there is room."""

from __future__ import annotations

import time

import pytest

from stem_iso.brokers.base import Broker, Verdict
from stem_iso.outcome import TaskState
from stem_iso.task.envelope import decode
from stem_iso.testing.assertions import eventually
from stem_iso.testing.contract.delays import quiet, wakes
from stem_iso.testing.contract.limits import ONE, TAKEN, begin, begun, publish
from stem_iso.testing.contract.steps import CANCEL, SUCCESS, Steps, counts, next_attempt, settle, status, take, take_one


class Lines(Steps):
    def test_what_is_refused_waits_as_it_was(self, broker: Broker) -> None:
        publish(broker, 1)
        holder = begun(broker, ONE)
        (sent,) = publish(broker, 1, priority=3, enqueued_at=7.0)
        refused = take_one(broker)
        permit = broker.acquire(refused.receipt, ONE)
        assert permit.verdict is Verdict.DONE and permit.wait > 0
        waiting = status(broker, sent.id)
        assert (waiting.state, waiting.reason, waiting.attempt, waiting.redeliveries) == (TaskState.QUEUED, "concurrency-limit", 0, 0)
        assert settle(broker, refused, SUCCESS) is Verdict.LOST and broker.renew([refused.receipt]) == [refused.receipt]
        settle(broker, holder, SUCCESS)
        again = begun(broker, ONE)
        assert decode(again.body) == sent and again.redeliveries == 0 and again.receipt != refused.receipt
        assert (status(broker, sent.id).state, status(broker, sent.id).reason) == (TaskState.RUNNING, None)

    def test_a_retry_that_is_refused_waits_as_a_retry(self, broker: Broker) -> None:
        (sent,) = publish(broker, 1)
        settle(broker, begun(broker, ONE), next_attempt(sent))
        publish(broker, 1, priority=9)
        holder = take_one(broker)
        assert broker.acquire(holder.receipt, ONE) == TAKEN
        assert begin(broker, ONE) == []
        assert (status(broker, sent.id).state, status(broker, sent.id).attempt) == (TaskState.RETRIED, 1)

    def test_the_line_keeps_the_order_of_the_queue(self, broker: Broker) -> None:
        publish(broker, 1, priority=9)
        holder = begun(broker, ONE)
        low, high = publish(broker, 3), publish(broker, 2, priority=5)
        assert begin(broker, ONE) == []
        ran = []
        for _ in range(5):
            settle(broker, holder, SUCCESS)
            holder = begun(broker, ONE)
            ran.append(holder.receipt.id)
        assert ran == [one.id for one in (*high, *low)]

    @pytest.mark.parametrize("how", ["waits", "has just been called"])
    def test_one_that_is_revoked_in_line_hands_its_turn_on(self, broker: Broker, how: str) -> None:
        publish(broker, 1)
        holder = begun(broker, ONE)
        first, second = publish(broker, 2)
        assert begin(broker, ONE) == []
        if how == "waits":
            assert broker.revoke(first.id)
            settle(broker, holder, SUCCESS)
        else:
            settle(broker, holder, SUCCESS)
            eventually(lambda: counts(broker)[0] == 1)
            assert broker.revoke(first.id)
        assert status(broker, first.id).state is TaskState.CANCELLED
        assert begun(broker, ONE).receipt.id == second.id

    def test_one_that_was_called_and_is_over_before_it_asks_hands_its_turn_on(self, broker: Broker) -> None:
        publish(broker, 1)
        holder = begun(broker, ONE)
        _, second = publish(broker, 2)
        assert begin(broker, ONE) == []
        settle(broker, holder, SUCCESS)
        settle(broker, eventually(lambda: take(broker))[0], CANCEL)  # at the gate before: it had expired
        assert begun(broker, ONE).receipt.id == second.id

    def test_a_purged_line_is_gone(self, broker: Broker) -> None:
        publish(broker, 1)
        holder = begun(broker, ONE)
        publish(broker, 3)
        assert begin(broker, ONE) == []
        assert broker.purge("default") == 3
        settle(broker, holder, SUCCESS)
        assert broker.queues() == []

    def test_room_wakes_an_idle_worker(self, broker: Broker, other: Broker) -> None:
        publish(broker, 2)
        holder = begun(other, ONE, "beta")
        assert begin(broker, ONE) == []
        watch = broker.watch("alpha", ["default"])
        take(broker)
        quiet(watch)
        settle(other, holder, SUCCESS)
        assert wakes(watch)
        begun(broker, ONE)
        watch.close()

    def test_one_bucket_over_several_queues(self, broker: Broker) -> None:
        publish(broker, 1)
        publish(broker, 1, queue="b")
        holder = begun(broker, ONE)
        assert begin(broker, ONE, queues=["b"]) == []
        settle(broker, holder, SUCCESS)
        eventually(lambda: begin(broker, ONE, queues=["b"]))

    def test_it_is_back_when_it_expires_at_the_latest(self, broker: Broker) -> None:
        publish(broker, 2)
        first, second = take(broker)
        assert broker.acquire(first.receipt, ONE) == TAKEN
        permit = broker.acquire(second.receipt, ONE, time.time() + 0.2)
        assert 0 < permit.wait <= 0.2
        (again,) = eventually(lambda: take(broker))
        assert again.receipt.id == second.receipt.id
