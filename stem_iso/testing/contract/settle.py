"""The end of an attempt: one step, one outcome, and only by who holds the lease."""

from __future__ import annotations

import msgspec
import pytest

from stem_iso.brokers.base import Broker, Settlement, Verdict
from stem_iso.outcome import Progress, TaskState
from stem_iso.task.envelope import decode
from stem_iso.task.settlement import Finish, GiveBack, Plan
from stem_iso.testing.assertions import eventually
from stem_iso.testing.contract.steps import (
    ALL,
    CANCEL,
    ERROR,
    FAILURE,
    RESULT,
    SUCCESS,
    Steps,
    counts,
    envelope,
    give_back,
    ids,
    next_attempt,
    settle,
    status,
    take,
    take_one,
)


class Settling(Steps):
    def test_a_success_keeps_its_result(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        delivery = take_one(broker)
        running = status(broker, sent.id)
        assert running.state is TaskState.RUNNING and running.started_at is not None
        assert settle(broker, delivery, SUCCESS) is Verdict.DONE
        ended = status(broker, sent.id)
        assert (ended.state, ended.result, ended.reason, ended.error) == (TaskState.SUCCEEDED, RESULT, None, None)
        assert ended.finished_at is not None and ended.started_at is not None and ended.finished_at >= ended.started_at
        assert broker.queues() == [] and broker.dead_letters(ALL) == []

    def test_a_failure_leaves_one_dead_letter_with_the_last_body(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        settle(broker, take_one(broker), next_attempt(sent, headers={"try": "2"}))
        delivery = take_one(broker)
        assert settle(broker, delivery, FAILURE) is Verdict.DONE
        ended = status(broker, sent.id)
        assert (ended.state, ended.reason, ended.error, ended.attempt) == (TaskState.FAILED, FAILURE.reason, ERROR, 1)
        (letter,) = broker.dead_letters(ALL)
        assert (letter.id, letter.name, letter.queue, letter.reason) == (sent.id, sent.name, "default", FAILURE.reason)
        assert (letter.run, letter.attempt, letter.error, letter.body) == (0, 1, ERROR, delivery.body)
        assert counts(broker) == (0, 0, 0, 1)

    def test_a_cancelled_one_leaves_no_dead_letter(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        settle(broker, take_one(broker), CANCEL)
        assert (status(broker, sent.id).state, status(broker, sent.id).reason) == (TaskState.CANCELLED, "expired")
        assert broker.dead_letters(ALL) == []

    def test_a_retry_is_the_same_task_once_more(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        settle(broker, take_one(broker), next_attempt(sent))
        waiting = status(broker, sent.id)
        assert (waiting.state, waiting.attempt, waiting.error) == (TaskState.RETRIED, 1, ERROR)
        assert counts(broker) == (1, 0, 0, 0)
        second = eventually(lambda: take(broker), 1.0)
        assert [decode(delivery.body).attempt for delivery in second] == [1]
        assert take(broker) == []

    def test_three_retries_leave_one_message_and_no_dead_letter(self, broker: Broker) -> None:
        current = envelope()
        broker.publish([current])
        for attempt in range(1, 4):
            settle(broker, take_one(broker), next_attempt(current))
            current = msgspec.structs.replace(current, attempt=attempt)
            assert counts(broker) == (1, 0, 0, 0)
        settle(broker, take_one(broker), SUCCESS)
        assert status(broker, current.id).attempt == 3
        assert broker.queues() == []

    def test_giving_back_uses_up_nothing(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        for _ in range(broker.options.max_redeliveries + 2):
            delivery = take_one(broker)
            assert (delivery.redeliveries, decode(delivery.body).attempt) == (0, 0)
            assert give_back(broker, delivery) is Verdict.DONE
        assert status(broker, sent.id).state is TaskState.QUEUED

    def test_giving_back_may_change_the_envelope(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        changed = msgspec.structs.replace(sent, unregistered_since=7.0)
        settle(broker, take_one(broker), GiveBack(successor=changed))
        assert decode(take_one(broker).body).unregistered_since == 7.0

    @pytest.mark.parametrize("plan", [SUCCESS, FAILURE, CANCEL, GiveBack(), next_attempt(envelope())], ids=lambda plan: type(plan).__name__)
    def test_a_receipt_is_good_for_one_settlement(self, broker: Broker, plan: Plan) -> None:
        sent = envelope()
        broker.publish([sent])
        delivery = take_one(broker)
        give_back(broker, delivery)
        held = take_one(broker, "beta")
        assert settle(broker, delivery, plan) is Verdict.LOST
        assert status(broker, sent.id).state is TaskState.RUNNING
        assert counts(broker) == (0, 0, 1, 0)
        assert settle(broker, held, SUCCESS) is Verdict.DONE
        assert settle(broker, held, plan) is Verdict.LOST
        assert status(broker, sent.id).state is TaskState.SUCCEEDED
        assert broker.dead_letters(ALL) == []

    def test_the_same_worker_cannot_settle_its_former_lease(self, broker: Broker) -> None:
        broker.publish([envelope()])
        former = take_one(broker)
        give_back(broker, former)
        current = take_one(broker)
        assert former.receipt != current.receipt
        assert current.receipt.sequence > former.receipt.sequence
        assert settle(broker, former, SUCCESS) is Verdict.LOST
        assert settle(broker, current, SUCCESS) is Verdict.DONE

    def test_a_batch_is_answered_in_its_order(self, broker: Broker) -> None:
        sent = [envelope() for _ in range(6)]
        broker.publish(sent)
        held = take(broker)
        stale = held[1].receipt.__class__(sent[1].id, "alpha", held[1].receipt.sequence - 1)
        exchange = broker.exchange(
            "alpha",
            [
                Settlement(held[0].receipt, SUCCESS),
                Settlement(stale, SUCCESS),
                Settlement(held[2].receipt, FAILURE),
                Settlement(held[0].receipt, FAILURE),
                Settlement(held[3].receipt, next_attempt(sent[3])),
                Settlement(held[4].receipt, GiveBack(60)),
            ],
            ["default"],
            0,
        )
        assert exchange.verdicts == [Verdict.DONE, Verdict.LOST, Verdict.DONE, Verdict.LOST, Verdict.DONE, Verdict.DONE]
        assert counts(broker) == (1, 1, 2, 1)
        assert status(broker, sent[0].id).state is TaskState.SUCCEEDED

    def test_settling_and_fetching_are_one_step(self, broker: Broker) -> None:
        broker.publish([envelope(), envelope()])
        first = take_one(broker)
        exchange = broker.exchange("alpha", [Settlement(first.receipt, SUCCESS)], ["default"], 1)
        assert exchange.verdicts == [Verdict.DONE]
        assert len(exchange.deliveries) == 1
        assert counts(broker) == (0, 0, 1, 0)

    def test_what_is_given_back_keeps_its_place(self, broker: Broker) -> None:
        sent = [envelope() for _ in range(4)]
        broker.publish(sent)
        held = take(broker, 3)
        broker.exchange("alpha", [Settlement(one.receipt, GiveBack()) for one in held], [], 0)
        assert ids(take(broker)) == [one.id for one in sent]

    def test_a_large_batch_settles_whole(self, broker: Broker) -> None:
        broker.publish([envelope() for _ in range(1100)])
        held = take(broker, 1100)
        exchange = broker.exchange("alpha", [Settlement(one.receipt, SUCCESS) for one in held], [], 0)
        assert set(exchange.verdicts) == {Verdict.DONE}
        assert {status.state for status in broker.status(ids(held)) if status} == {TaskState.SUCCEEDED}
        assert broker.queues() == []

    def test_what_the_handler_wrote_is_kept_and_carried_on(self, broker: Broker) -> None:
        sent = envelope(meta={"by": "api"})
        broker.publish([sent])
        delivery = take_one(broker)
        broker.note(delivery.receipt, {"step": 1}, Progress(50.0, {"at": "half"}))
        running = status(broker, sent.id)
        assert (running.meta, running.progress) == ({"step": 1}, Progress(50.0, {"at": "half"}))
        give_back(broker, delivery)
        delivery = take_one(broker)
        assert decode(delivery.body).meta == {"step": 1}
        settle(broker, delivery, next_attempt(sent), meta={"step": 2})
        delivery = take_one(broker)
        assert decode(delivery.body).meta == {"step": 2}
        settle(broker, delivery, FAILURE, meta={"step": 3}, progress=Progress(90.0))
        ended = status(broker, sent.id)
        assert (ended.meta, ended.progress) == ({"step": 3}, Progress(90.0))
        assert decode(broker.dead_letters(ALL)[0].body).meta == {"step": 3}

    def test_a_status_lives_as_long_as_its_time_to_live(self, broker: Broker) -> None:
        brief, kept = envelope(), envelope()
        broker.publish([brief, kept])
        for delivery, ttl in zip(take(broker), (0.1, 60.0), strict=True):
            settle(broker, delivery, Finish(TaskState.SUCCEEDED, result=RESULT, ttl=ttl))
        eventually(lambda: broker.status([brief.id]) == [None])
        assert status(broker, kept.id).result == RESULT
        eventually(lambda: broker.sweep() == 0)
        assert status(broker, kept.id).result == RESULT
