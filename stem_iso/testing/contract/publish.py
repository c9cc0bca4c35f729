"""Envelopes in, deliveries out: order, counts, idempotence, limits."""

from __future__ import annotations

import msgspec
import pytest

from stem_iso.brokers.base import Broker
from stem_iso.errors import PayloadTooLarge
from stem_iso.outcome import TaskState
from stem_iso.task.envelope import decode, encode
from stem_iso.testing.contract.steps import RESULT, SUCCESS, Steps, counts, envelope, ids, next_attempt, settle, status, take, take_one


class Publishing(Steps):
    def test_an_empty_store_has_nothing_to_give(self, broker: Broker) -> None:
        exchange = broker.exchange("alpha", [], ["default"], 10)
        assert (exchange.deliveries, exchange.next_due, exchange.ready) == ([], None, False)
        assert broker.queues() == []

    def test_what_is_published_is_delivered_as_it_was(self, broker: Broker) -> None:
        sent = envelope(args=msgspec.Raw(msgspec.msgpack.encode({"path": "cat.png"})), headers={"x": "1"}, meta={"by": "api"})
        assert broker.publish([sent]) == [sent.id]
        delivery = take_one(broker)
        assert delivery.body == encode(sent)
        assert (delivery.receipt.id, delivery.receipt.boot, delivery.queue, delivery.redeliveries) == (sent.id, "alpha", "default", 0)

    def test_counts_are_right_at_each_step(self, broker: Broker) -> None:
        broker.publish([envelope(), envelope(), envelope(not_before=9e9)])
        assert counts(broker) == (2, 1, 0, 0)
        delivery = take_one(broker)
        assert counts(broker) == (1, 1, 1, 0)
        settle(broker, delivery, SUCCESS)
        assert counts(broker) == (1, 1, 0, 0)

    def test_the_same_envelope_again_changes_nothing_at_any_time(self, broker: Broker) -> None:
        sent = envelope()
        for _ in range(2):
            assert broker.publish([sent]) == [sent.id]
        assert broker.publish([sent, sent]) == [sent.id, sent.id]
        assert counts(broker) == (1, 0, 0, 0)
        delivery = take_one(broker)
        broker.publish([sent])
        assert counts(broker) == (0, 0, 1, 0)
        settle(broker, delivery, SUCCESS)
        broker.publish([sent])
        assert counts(broker) == (0, 0, 0, 0)
        assert status(broker, sent.id).result == RESULT

    def test_an_older_attempt_that_arrives_late_changes_nothing(self, broker: Broker) -> None:
        first = envelope()
        broker.publish([first])
        settle(broker, take_one(broker), next_attempt(first))
        broker.publish([first])
        assert status(broker, first.id).attempt == 1
        assert len(take(broker)) == 1

    def test_a_large_batch_is_stored_whole_and_in_order(self, broker: Broker) -> None:
        sent = [envelope() for _ in range(1201)]
        assert broker.publish(sent) == [one.id for one in sent]
        assert counts(broker) == (1201, 0, 0, 0)
        assert ids(take(broker, 1201)) == [one.id for one in sent]

    def test_one_that_is_too_large_keeps_the_whole_batch_out(self, broker: Broker) -> None:
        limit = broker.options.max_payload_bytes
        large = envelope(args=msgspec.Raw(msgspec.msgpack.encode({"data": "x" * limit})))
        with pytest.raises(PayloadTooLarge, match=f"{limit:,}"):
            broker.publish([envelope(), large])
        assert broker.queues() == []

    def test_priority_9_comes_before_1_and_equals_come_in_order(self, broker: Broker) -> None:
        sent = [envelope(priority=priority) for priority in (1, 9, 0, 9, 1)]
        broker.publish(sent)
        assert ids(take(broker)) == [sent[index].id for index in (1, 3, 0, 4, 2)]

    def test_priority_holds_for_who_takes_one_at_a_time(self, broker: Broker) -> None:
        sent = [
            envelope(queue=queue, priority=priority) for queue, priority in (("a", 0), ("b", 1), ("a", 5), ("a", 0), ("b", 9), ("a", 8))
        ]
        broker.publish(sent)
        got = [take_one(broker, queues=["a", "b"]).receipt.id for _ in sent]
        assert got == [sent[index].id for index in (4, 5, 2, 1, 0, 3)]

    def test_no_more_are_in_flight_than_were_asked_for(self, broker: Broker) -> None:
        broker.publish([envelope() for _ in range(5)])
        exchange = broker.exchange("alpha", [], ["default"], 2)
        assert (len(exchange.deliveries), exchange.ready) == (2, True)
        assert broker.exchange("alpha", [], ["default"], 0).deliveries == []
        exchange = broker.exchange("alpha", [], ["default"], 3)
        assert (len(exchange.deliveries), exchange.ready) == (3, False)
        assert counts(broker) == (0, 0, 5, 0)

    def test_only_the_queues_asked_for_are_served_and_by_priority_across_them(self, broker: Broker) -> None:
        sent = [envelope(queue="a", priority=1), envelope(queue="b", priority=5), envelope(queue="c")]
        broker.publish(sent)
        assert ids(take(broker, queues=["a", "b"])) == [sent[1].id, sent[0].id]
        assert [one.name for one in broker.queues()] == ["a", "b", "c"]
        assert counts(broker, "c") == (1, 0, 0, 0)

    def test_two_workers_never_get_the_same_delivery(self, broker: Broker, other: Broker) -> None:
        broker.publish([envelope() for _ in range(20)])
        seen: list[str] = []
        while got := take(broker, 3, "alpha") + take(other, 3, "beta"):
            seen += ids(got)
        assert len(seen) == len(set(seen)) == 20

    def test_fields_of_a_newer_version_survive(self, broker: Broker) -> None:
        newer = envelope(extra={"colour": msgspec.Raw(msgspec.msgpack.encode("blue"))})
        broker.publish([newer])
        first = decode(take_one(broker).body)
        assert dict(first.extra) == dict(newer.extra)

    def test_bytes_that_are_no_envelope_are_delivered_and_block_nothing(self, broker: Broker) -> None:
        broken, sound = envelope(args=msgspec.Raw(b"\xc1")), envelope()
        broker.publish([broken, sound])
        assert ids(take(broker)) == [broken.id, sound.id]

    def test_what_expired_while_it_waited_is_delivered_to_the_gate(self, broker: Broker) -> None:
        sent = envelope(expires=1.0)
        broker.publish([sent])
        assert ids(take(broker)) == [sent.id]

    def test_a_status_shows_what_the_envelope_held(self, broker: Broker) -> None:
        sent = envelope(enqueued_at=1000.0, meta={"by": "api"}, parent_id="p", root_id="r", not_before=9e9)
        broker.publish([sent])
        found = status(broker, sent.id)
        assert (found.state, found.name, found.queue, found.run, found.attempt) == (TaskState.QUEUED, sent.name, "default", 0, 0)
        assert (found.enqueued_at, found.not_before, found.meta) == (1000.0, 9e9, {"by": "api"})
        assert (found.parent_id, found.root_id, found.started_at, found.finished_at) == ("p", "r", None, None)

    def test_statuses_come_in_the_order_of_the_question(self, broker: Broker) -> None:
        sent = [envelope(), envelope()]
        broker.publish(sent)
        found = broker.status([sent[1].id, "nobody", sent[0].id, sent[1].id])
        assert [record.id if record else None for record in found] == [sent[1].id, None, sent[0].id, sent[1].id]
