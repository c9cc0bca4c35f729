"""Workers that do not come back: counted, capped, and kept apart from those that run at most once."""

from __future__ import annotations

import pytest

from stem_iso.brokers.base import Broker, Verdict
from stem_iso.outcome import TaskState
from stem_iso.task.envelope import decode
from stem_iso.testing.assertions import eventually
from stem_iso.testing.contract.steps import ALL, SUCCESS, Steps, counts, envelope, give_back, next_attempt, settle, status, take_one


def lose(broker: Broker, boot: str) -> None:
    """The worker of `boot` dies and its successor comes."""
    broker.reclaim("successor", predecessor=boot)


class LostWorkers(Steps):
    def test_a_predecessors_leases_are_taken_at_once(self, broker: Broker, other: Broker) -> None:
        sent = [envelope(), envelope()]
        broker.publish(sent)
        held = [take_one(broker, "old"), take_one(broker, "somebody")]
        (found,) = other.reclaim("new", predecessor="old")
        assert (found.id, found.state) == (sent[0].id, TaskState.QUEUED)
        assert take_one(other, "new").redeliveries == 1
        assert settle(broker, held[0], SUCCESS) is Verdict.LOST
        assert settle(broker, held[1], SUCCESS) is Verdict.DONE

    def test_past_the_limit_it_is_a_dead_letter(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        for count in range(broker.options.max_redeliveries):
            assert take_one(broker, "doomed").redeliveries == count
            assert [one.state for one in broker.reclaim("alpha", "doomed")] == [TaskState.QUEUED]
        last = take_one(broker, "doomed")
        (found,) = broker.reclaim("alpha", "doomed")
        assert (found.state, found.reason) == (TaskState.FAILED, "redelivery-limit")
        ended = status(broker, sent.id)
        assert (ended.state, ended.reason) == (TaskState.FAILED, "redelivery-limit")
        assert ended.error is not None and ended.error.message
        (letter,) = broker.dead_letters(ALL)
        assert (letter.id, letter.reason, letter.body) == (sent.id, "redelivery-limit", last.body)
        assert counts(broker) == (0, 0, 0, 1)

    def test_redeliveries_are_counted_over_the_attempts_of_a_run(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        take_one(broker, "doomed")
        lose(broker, "doomed")
        settle(broker, take_one(broker), next_attempt(sent))
        assert take_one(broker, "doomed").redeliveries == 1
        lose(broker, "doomed")
        delivery = take_one(broker)
        assert delivery.redeliveries == 2
        give_back(broker, delivery)
        assert take_one(broker).redeliveries == 2

    def test_a_lost_retry_waits_as_a_retry(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        settle(broker, take_one(broker), next_attempt(sent))
        take_one(broker, "doomed")
        lose(broker, "doomed")
        assert (status(broker, sent.id).state, status(broker, sent.id).attempt) == (TaskState.RETRIED, 1)

    def test_what_a_lost_handler_wrote_reaches_the_next_attempt(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        broker.note(take_one(broker, "doomed").receipt, {"page": 7}, None)
        lose(broker, "doomed")
        assert decode(take_one(broker).body).meta == {"page": 7}

    def test_at_most_once_is_not_run_again(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        assert broker.mark(take_one(broker, "doomed").receipt)
        (found,) = broker.reclaim("alpha", "doomed")
        assert (found.state, found.reason) == (TaskState.FAILED, "worker-lost")
        assert (status(broker, sent.id).state, status(broker, sent.id).reason) == (TaskState.FAILED, "worker-lost")
        assert [letter.reason for letter in broker.dead_letters(ALL)] == ["worker-lost"]
        assert counts(broker) == (0, 0, 0, 1)

    @pytest.mark.parametrize("how", ["retried", "given back"])
    def test_a_mark_belongs_to_one_delivery(self, broker: Broker, how: str) -> None:
        sent = envelope()
        broker.publish([sent])
        delivery = take_one(broker)
        broker.mark(delivery.receipt)
        if how == "retried":
            settle(broker, delivery, next_attempt(sent))
        else:
            give_back(broker, delivery)
        take_one(broker, "doomed")
        assert [one.state for one in broker.reclaim("alpha", "doomed")] == [TaskState.QUEUED]

    def test_a_revoked_one_that_is_lost_is_cancelled(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        take_one(broker, "doomed")
        broker.revoke(sent.id)
        (found,) = broker.reclaim("alpha", "doomed")
        assert (found.state, found.reason) == (TaskState.CANCELLED, "revoked")
        assert (status(broker, sent.id).state, status(broker, sent.id).reason) == (TaskState.CANCELLED, "revoked")
        assert broker.dead_letters(ALL) == [] and broker.queues() == []

    def test_expired_leases_and_a_predecessors_are_each_reclaimed_once(self, broker: Broker) -> None:
        broker.publish([envelope(visibility_timeout=0.02) for _ in range(3)])
        take_one(broker, "old")
        take_one(broker, "old")
        take_one(broker, "gone")
        found: list[str] = []
        while len(found) < 3:
            found += [one.id for one in eventually(lambda: broker.reclaim("alpha", "old"))]
        assert len(found) == len(set(found)) == 3
