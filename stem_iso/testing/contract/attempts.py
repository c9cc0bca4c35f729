"""History of attempts: a status shows those that ended before, through retries, edits and replays."""

from __future__ import annotations

import time

import msgspec

from stem_iso.brokers.base import Broker
from stem_iso.outcome import EndedAttempt, TaskState
from stem_iso.task.attempt_history import ended_attempt, remember
from stem_iso.task.envelope import Envelope, decode, encode
from stem_iso.testing.contract.steps import ALL, ERROR, FAILURE, SUCCESS, Steps, envelope, next_attempt, settle, status, take_one


def ended(of: Envelope) -> EndedAttempt:
    return ended_attempt(of, ERROR, "error", started_at=1.5, finished_at=2.5, worker_id="w1")


def tried_again(broker: Broker, current: Envelope) -> Envelope:
    """Its next attempt, by a worker that remembers this one."""
    retry = next_attempt(current, attempts=(*current.attempts, ended(current)))
    settle(broker, take_one(broker), retry)
    return retry.successor


class AttemptHistory(Steps):
    def test_those_that_were_tried_again_are_shown_until_the_end_and_after_it(self, broker: Broker) -> None:
        first = envelope()
        broker.publish([first])
        assert status(broker, first.id).attempts == ()
        third = tried_again(broker, tried_again(broker, first))
        waiting = status(broker, first.id)
        assert [(each.attempt, each.error_type, each.worker_id) for each in waiting.attempts] == [
            (0, ERROR.type, "w1"),
            (1, ERROR.type, "w1"),
        ]
        delivery = take_one(broker)
        assert decode(delivery.body).attempts == third.attempts
        assert status(broker, first.id).attempts == waiting.attempts
        settle(broker, delivery, SUCCESS)
        over = status(broker, first.id)
        assert (over.state, over.attempt, over.attempts) == (TaskState.SUCCEEDED, 2, waiting.attempts)

    def test_a_retry_of_what_failed_remembers_the_failure(self, broker: Broker) -> None:
        first = envelope()
        broker.publish([first])
        tried_again(broker, first)
        settle(broker, take_one(broker), FAILURE)
        over = status(broker, first.id)
        assert broker.retry(first.id) is not None
        before = status(broker, first.id).attempts
        assert [(each.run, each.attempt, each.state) for each in before] == [(0, 0, "retried"), (0, 1, "failed")]
        last = before[-1]
        assert (last.reason, last.error_type, last.error_message) == (FAILURE.reason, ERROR.type, ERROR.message)
        assert last.started_at is not None and over.started_at is not None and over.finished_at is not None
        assert abs(last.started_at.timestamp() - over.started_at) < 0.001 and abs(last.finished_at.timestamp() - over.finished_at) < 0.001

    def test_when_its_newest_attempt_could_begin_is_known_until_the_end_and_after_it(self, broker: Broker) -> None:
        now = time.time()
        first = envelope(enqueued_at=now - 100, not_before=now - 50)
        broker.publish([first])
        assert status(broker, first.id).ready_at == now - 50
        retry = next_attempt(first, not_before=now - 10)
        settle(broker, take_one(broker), retry)
        assert status(broker, first.id).ready_at == now - 10
        delivery = take_one(broker)
        assert status(broker, first.id).ready_at == now - 10
        settle(broker, delivery, SUCCESS)
        assert status(broker, first.id).ready_at == now - 10

    def test_a_replay_and_an_edit_keep_it(self, broker: Broker) -> None:
        first = envelope()
        broker.publish([first])
        settle(broker, take_one(broker), FAILURE)
        broker.replay(ALL)
        assert [(each.run, each.state, each.reason) for each in status(broker, first.id).attempts] == [(0, "failed", FAILURE.reason)]
        broker.edit(first.id, 1, msgspec.msgpack.encode({"path": "b.png"}))
        assert [each.run for each in status(broker, first.id).attempts] == [0]
        settle(broker, take_one(broker), FAILURE)
        broker.edit(first.id, 2, msgspec.msgpack.encode({"path": "c.png"}))
        assert [each.run for each in status(broker, first.id).attempts] == [0, 2]

    def test_what_was_revoked_before_it_began_has_no_attempt(self, broker: Broker) -> None:
        first = envelope()
        broker.publish([first])
        broker.revoke(first.id)
        broker.retry(first.id)
        assert status(broker, first.id).attempts == ()

    def test_arguments_that_leave_it_no_room_are_no_reason_to_refuse_them(self, broker: Broker) -> None:
        limit = broker.options.max_payload_bytes
        first = envelope()
        broker.publish([first])
        tried_again(broker, first)
        spare = limit - len(encode(msgspec.structs.replace(first, run=1))) - 40
        answer = broker.edit(first.id, 0, msgspec.msgpack.encode({"x": b"x" * spare}))
        assert answer is not None and answer.refused is None
        assert status(broker, first.id).attempts == ()
        assert len(take_one(broker).body) <= limit

    def test_the_newest_twenty_are_kept_and_fewer_where_there_is_no_room(self, broker: Broker) -> None:
        current = envelope(args=msgspec.Raw(msgspec.msgpack.encode({"x": b"x" * 1000})))
        largest = broker.options.max_payload_bytes
        for number in range(25):
            current = msgspec.structs.replace(remember(current, ended(current), largest), attempt=number + 1)
        broker.publish([current])
        assert [each.attempt for each in status(broker, current.id).attempts] == list(range(5, 25))
        small = remember(current, ended(current), len(encode(current)) // 2)
        assert len(encode(small)) <= len(encode(current)) // 2
        assert 1 <= len(small.attempts) < 20 and small.attempts[-1].attempt == 25
