"""Revoke, forget, purge."""

from __future__ import annotations

import pytest

from stem_iso.brokers.base import Broker, Verdict
from stem_iso.outcome import TaskState
from stem_iso.task.settlement import Finish, GiveBack, Plan
from stem_iso.testing.contract.steps import (
    ALL,
    ERROR,
    FAILURE,
    SUCCESS,
    Steps,
    counts,
    envelope,
    next_attempt,
    settle,
    status,
    take,
    take_one,
)


class Revoking(Steps):
    @pytest.mark.parametrize("waits", ["ready", "delayed", "retrying"])
    def test_what_waits_is_cancelled_at_once(self, broker: Broker, other: Broker, waits: str) -> None:
        sent = envelope(not_before=9e9 if waits == "delayed" else None)
        broker.publish([sent])
        if waits == "retrying":
            settle(broker, take_one(broker), next_attempt(sent, not_before=9e9))
        assert other.revoke(sent.id) is True
        ended = status(broker, sent.id)
        assert (ended.state, ended.reason) == (TaskState.CANCELLED, "revoked")
        assert ended.finished_at is not None
        assert take(broker) == [] and broker.queues() == []
        assert broker.revoke(sent.id) is False

    def test_nothing_to_revoke(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        settle(broker, take_one(broker), SUCCESS)
        assert broker.revoke(sent.id, terminate=True) is False
        assert broker.revoke("nobody") is False
        assert status(broker, sent.id).state is TaskState.SUCCEEDED

    def test_the_holder_gets_the_order_until_it_has_settled(self, broker: Broker, other: Broker) -> None:
        sent = envelope()
        broker.publish([sent, envelope()])
        delivery, _ = take(broker)
        assert broker.revocations("alpha") == []
        assert other.revoke(sent.id) is True
        for terminate in (False, True):
            for _ in range(2):
                (order,) = broker.revocations("alpha")
                assert (order.receipt, order.terminate) == (delivery.receipt, terminate)
            other.revoke(sent.id, terminate=True)
        assert other.revoke(sent.id) is True  # terminate is not taken back
        assert broker.revocations("alpha")[0].terminate is True
        assert broker.revocations("beta") == []
        assert status(broker, sent.id).state is TaskState.RUNNING
        settle(broker, delivery, GiveBack())
        assert broker.revocations("alpha") == []

    def test_a_revoked_success_stands(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        delivery = take_one(broker)
        broker.revoke(sent.id)
        assert settle(broker, delivery, SUCCESS) is Verdict.DONE
        assert status(broker, sent.id).state is TaskState.SUCCEEDED

    @pytest.mark.parametrize("plan", ["retry", "give back", "failure"])
    def test_every_other_end_of_a_revoked_run_is_cancelled(self, broker: Broker, plan: str) -> None:
        sent = envelope()
        broker.publish([sent])
        delivery = take_one(broker)
        broker.revoke(sent.id)
        plans: dict[str, Plan] = {"retry": next_attempt(sent), "give back": GiveBack(), "failure": FAILURE}
        assert settle(broker, delivery, plans[plan]) is Verdict.CANCELLED
        ended = status(broker, sent.id)
        assert (ended.state, ended.reason, ended.error) == (TaskState.CANCELLED, "revoked", None if plan == "give back" else ERROR)
        assert broker.dead_letters(ALL) == [] and broker.queues() == []

    def test_purge_ends_what_waits_and_leaves_what_runs(self, broker: Broker) -> None:
        sent = [envelope(priority=9), envelope(), envelope(not_before=9e9), envelope(queue="b")]
        broker.publish(sent)
        delivery = take_one(broker)
        assert broker.purge("default") == 2
        assert counts(broker) == (0, 0, 1, 0) and counts(broker, "b") == (1, 0, 0, 0)
        for one in sent[1:3]:
            assert (status(broker, one.id).state, status(broker, one.id).reason) == (TaskState.CANCELLED, "purged")
        assert settle(broker, delivery, SUCCESS) is Verdict.DONE
        assert broker.purge("default") == 0

    def test_a_large_queue_is_purged_whole(self, broker: Broker) -> None:
        broker.publish([envelope() for _ in range(2300)])
        assert broker.purge("default") == 2300
        assert broker.queues() == []

    def test_a_finished_task_is_forgotten_at_once(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        settle(broker, take_one(broker), SUCCESS)
        assert broker.forget(sent.id) is True
        assert broker.status([sent.id]) == [None]
        assert broker.forget(sent.id) is False

    @pytest.mark.parametrize("plan", [SUCCESS, FAILURE], ids=["success", "failure"])
    def test_an_unfinished_one_is_forgotten_when_it_has_settled(self, broker: Broker, plan: Finish) -> None:
        sent = envelope()
        broker.publish([sent])
        assert broker.forget(sent.id) is True
        assert status(broker, sent.id).state is TaskState.QUEUED
        delivery = take_one(broker)
        assert settle(broker, delivery, plan) is Verdict.DONE
        assert broker.status([sent.id]) == [None]
        assert len(broker.dead_letters(ALL)) == (0 if plan is SUCCESS else 1)

    def test_a_forgotten_one_that_is_revoked_leaves_nothing(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        broker.forget(sent.id)
        assert broker.revoke(sent.id) is True
        assert broker.status([sent.id]) == [None] and broker.queues() == []
