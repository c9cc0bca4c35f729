"""Retry: what failed or was cancelled runs again; what has not, does not."""

from __future__ import annotations

import msgspec
import pytest

from stem_iso.brokers.base import Broker, DeadFilter
from stem_iso.outcome import TaskState
from stem_iso.task.envelope import decode
from stem_iso.task.settlement import Finish
from stem_iso.testing.assertions import eventually
from stem_iso.testing.contract.canvas_steps import chain, compose, group, leaf
from stem_iso.testing.contract.steps import ALL, CANCEL, FAILURE, SUCCESS, Steps, counts, envelope, ids, settle, status, take, take_one

ARGS = msgspec.Raw(msgspec.msgpack.encode({"path": "cat.png"}))


def refused(broker: Broker, id: str) -> str | None:
    answer = broker.retry(id)
    assert answer is not None and answer.id == id
    return answer.refused


class Retries(Steps):
    @pytest.mark.parametrize("ending", [FAILURE, CANCEL, SUCCESS], ids=["failed", "cancelled", "succeeded"])
    def test_the_arguments_are_known_before_and_after_the_end(self, broker: Broker, ending: Finish) -> None:
        sent = envelope(args=ARGS, headers={"x": "1"})
        broker.publish([sent])
        assert status(broker, sent.id).args == bytes(ARGS)
        delivery = take_one(broker)
        assert status(broker, sent.id).args == bytes(ARGS)
        settle(broker, delivery, ending)
        assert status(broker, sent.id).args == bytes(ARGS)

    @pytest.mark.parametrize("ending", [FAILURE, CANCEL], ids=["failed", "cancelled"])
    def test_what_ended_badly_is_the_same_task_in_a_new_run(self, broker: Broker, other: Broker, ending: Finish) -> None:
        sent = envelope(args=ARGS, headers={"x": "1"}, expires=1e12, max_retries=2, priority=3)
        broker.publish([sent])
        settle(broker, take_one(broker), ending, meta={"seen": 1})
        answer = other.retry(sent.id)
        assert answer is not None and (answer.id, answer.run, answer.refused) == (sent.id, 1, None)
        waiting = status(broker, sent.id)
        assert (waiting.state, waiting.run, waiting.attempt, waiting.redeliveries) == (TaskState.QUEUED, 1, 0, 0)
        assert (waiting.error, waiting.reason, waiting.finished_at, waiting.meta) == (None, None, None, {"seen": 1})
        assert broker.dead_letters(ALL) == []
        delivery = take_one(broker)
        again = decode(delivery.body)
        assert (again.run, again.expires, again.headers, again.max_retries, again.priority) == (1, None, {"x": "1"}, 2, 3)
        assert (bytes(again.args), again.meta) == (bytes(ARGS), {"seen": 1})
        settle(broker, delivery, SUCCESS)
        assert (status(broker, sent.id).state, status(broker, sent.id).run) == (TaskState.SUCCEEDED, 1)

    def test_what_was_revoked_while_it_waited_runs_again(self, broker: Broker) -> None:
        sent = envelope(args=ARGS, not_before=1e12)
        broker.publish([sent])
        assert broker.revoke(sent.id)
        assert refused(broker, sent.id) is None
        assert ids(take(broker)) == [sent.id]

    def test_what_has_not_failed_is_refused_and_unknown_is_none(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        assert refused(broker, sent.id) == "active"
        delivery = take_one(broker)
        assert refused(broker, sent.id) == "active"
        settle(broker, delivery, SUCCESS)
        assert refused(broker, sent.id) == "succeeded"
        assert broker.retry("nobody") is None
        assert counts(broker) == (0, 0, 0, 0)

    def test_one_that_is_forgotten_is_unknown(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        settle(broker, take_one(broker), CANCEL)
        broker.forget(sent.id)
        assert broker.retry(sent.id) is None

    def test_of_two_at_once_one_begins_a_run(self, broker: Broker, other: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        settle(broker, take_one(broker), FAILURE)
        assert (refused(broker, sent.id), refused(other, sent.id)) == (None, "active")
        assert ids(take(broker)) == [sent.id]

    def test_it_fails_and_runs_again_as_often_as_asked(self, broker: Broker) -> None:
        sent = envelope(args=ARGS)
        broker.publish([sent])
        for run in range(3):
            delivery = take_one(broker)
            assert decode(delivery.body).run == run
            settle(broker, delivery, FAILURE)
            assert [letter.run for letter in broker.dead_letters(DeadFilter(ids=[sent.id]))] == [run]
            assert refused(broker, sent.id) is None

    def test_a_unique_one_takes_its_lock_or_is_refused(self, broker: Broker) -> None:
        first, second = envelope(lock="default/thumbs.make/cat"), envelope(lock="default/thumbs.make/cat")
        broker.publish([first])
        settle(broker, take_one(broker), FAILURE)
        assert refused(broker, first.id) is None
        assert broker.publish([second]) == [first.id]
        settle(broker, take_one(broker), FAILURE)
        assert broker.publish([second]) == [second.id]
        assert refused(broker, first.id) == "unique"
        assert status(broker, first.id).state is TaskState.FAILED
        assert [letter.id for letter in broker.dead_letters(ALL)] == [first.id]
        settle(broker, take_one(broker), SUCCESS)
        assert refused(broker, first.id) is None

    def test_a_part_of_a_canvas_is_refused_and_so_is_a_group(self, broker: Broker) -> None:
        compose(broker, chain(leaf("a"), group("g", leaf("b"))))
        settle(broker, take_one(broker), FAILURE)
        assert {id: status(broker, id).state for id in ("a", "b", "g")} == dict.fromkeys(("a", "b", "g"), TaskState.FAILED)
        assert [refused(broker, id) for id in ("a", "b", "g")] == ["canvas"] * 3
        assert take(broker) == []

    def test_bytes_that_are_no_envelope_do_not_run_again(self, broker: Broker) -> None:
        sent = envelope(args=msgspec.Raw(b"\xc1"))
        broker.publish([sent])
        settle(broker, take_one(broker), Finish(TaskState.FAILED, reason="undecodable"))
        assert refused(broker, sent.id) == "undecodable"
        assert [letter.id for letter in broker.dead_letters(ALL)] == [sent.id]

    def test_a_retry_wakes_an_idle_worker(self, broker: Broker, other: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        settle(broker, take_one(broker), FAILURE)
        watch = broker.watch("alpha", ["default"])
        while watch.changed():
            pass
        assert refused(other, sent.id) is None
        eventually(watch.changed, 1.0)
        watch.close()

    def test_events_are_polled_in_order_from_the_watch_on(self, broker: Broker, other: Broker) -> None:
        watch = broker.watch_events()
        assert watch.poll(0.0) == []
        eventually(other.listening, 2.0)
        other.emit([b"one", b"two"])
        assert watch.poll(5.0) == [b"one", b"two"]
        assert watch.poll(0.0) == []
        watch.close()
