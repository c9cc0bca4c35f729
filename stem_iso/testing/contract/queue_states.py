"""States of queues: what is ready by priority, delayed, running, dead; how old the oldest is; and which queues are shown at all."""

from __future__ import annotations

import time

import pytest
from msgspec.structs import replace

from stem_iso.brokers.base import Broker
from stem_iso.brokers.operations import QueueState
from stem_iso.brokers.records import DeadFilter
from stem_iso.task.envelope import decode
from stem_iso.task.settlement import GiveBack
from stem_iso.testing.assertions import eventually
from stem_iso.testing.contract.canvas_steps import chain, compose, leaf
from stem_iso.testing.contract.steps import FAILURE, SUCCESS, Steps, envelope, next_attempt, settle, take, take_one
from stem_iso.testing.contract.workers import info

LATE = 5.0  # seconds of a busy machine


def state(broker: Broker, queue: str = "default") -> QueueState:
    (found,) = (each for each in broker.queue_states() if each.name == queue)
    return found


def numbers(broker: Broker, queue: str = "default") -> tuple[dict[int, int], int, int, int]:
    """by priority, delayed, running, dead"""
    found = state(broker, queue)
    return found.by_priority, found.delayed, found.running, found.dead


def age(broker: Broker, queue: str = "default") -> float:
    found = state(broker, queue).oldest_age
    assert found is not None
    return found


class QueueStates(Steps):
    def test_what_is_ready_is_counted_by_priority(self, broker: Broker, other: Broker) -> None:
        broker.publish([envelope(priority=priority) for priority in (0, 0, 5, 9, 9, 9)])
        assert numbers(other) == ({0: 2, 5: 1, 9: 3}, 0, 0, 0)
        assert state(other).queued == 6

    def test_what_is_delayed_runs_or_has_died_is_counted_apart(self, broker: Broker) -> None:
        first, *_ = sent = [envelope(), envelope(), envelope(), envelope(not_before=9e9)]
        broker.publish(sent)
        settle(broker, take_one(broker), next_attempt(first, not_before=9e9))
        settle(broker, take_one(broker), FAILURE)
        held = take_one(broker)
        assert numbers(broker) == ({}, 2, 1, 1)
        settle(broker, held, SUCCESS)
        assert numbers(broker) == ({}, 2, 0, 1)

    def test_what_comes_due_is_ready(self, broker: Broker) -> None:
        broker.publish([envelope(not_before=time.time() + 0.2, priority=3), envelope(not_before=9e9)])
        assert numbers(broker)[1] + sum(numbers(broker)[0].values()) == 2
        eventually(lambda: numbers(broker) == ({3: 1}, 1, 0, 0))

    @pytest.mark.parametrize("many", [1, 3])
    def test_what_was_revoked_in_line_is_not_counted(self, broker: Broker, many: int) -> None:
        sent = [envelope(priority=number % 2) for number in range(6)]
        broker.publish(sent)
        for each in sent[:many]:
            broker.revoke(each.id)
        found = numbers(broker)[0]
        assert (found.get(0, 0), found.get(1, 0)) == ((2, 3) if many == 1 else (1, 2))
        for each in sent[many:]:
            broker.revoke(each.id)
        assert state(broker) == QueueState(name="default")

    def test_one_that_was_revoked_and_retried_is_counted_once(self, broker: Broker) -> None:
        sent = [envelope(), envelope(priority=4)]
        broker.publish(sent)
        for _ in range(3):
            broker.revoke(sent[0].id)
            broker.retry(sent[0].id)
        assert numbers(broker) == ({0: 1, 4: 1}, 0, 0, 0)

    def test_what_waits_for_its_canvas_is_not_ready(self, broker: Broker) -> None:
        compose(broker, chain(leaf("a"), leaf("b")))
        assert numbers(broker) == ({0: 1}, 0, 0, 0)
        settle(broker, take_one(broker), SUCCESS)
        assert numbers(broker) == ({0: 1}, 0, 0, 0)

    # -- the oldest -------------------------------------------------------------------------------------------------------------

    def test_the_oldest_of_all_priorities_says_how_old(self, broker: Broker) -> None:
        now = time.time()
        broker.publish([envelope(priority=9, enqueued_at=now - 60)])
        broker.publish([envelope(priority=0, enqueued_at=now - 3600), envelope(priority=0, enqueued_at=now - 1800)])
        assert 3600 - LATE <= age(broker) <= 3600 + LATE
        settle(broker, take_one(broker), SUCCESS)
        settle(broker, take_one(broker), SUCCESS)
        assert 1800 - LATE <= age(broker) <= 1800 + LATE

    def test_what_is_not_ready_is_not_old(self, broker: Broker) -> None:
        now = time.time()
        sent = envelope(enqueued_at=now - 3600)
        broker.publish([sent, envelope(enqueued_at=now - 7200, not_before=now + 3600)])
        held = take_one(broker)
        assert state(broker).oldest_age is None
        settle(broker, held, GiveBack())
        assert age(broker) >= 3600 - LATE
        broker.revoke(sent.id)
        assert state(broker).oldest_age is None

    def test_one_that_came_due_is_as_old_as_that(self, broker: Broker) -> None:
        now = time.time()
        broker.publish([envelope(enqueued_at=now - 7200, not_before=now - 600)])
        assert 600 - LATE <= age(broker) <= 600 + LATE
        broker.publish([envelope(queue="other", enqueued_at=now - 7200, not_before=now + 0.1)])
        eventually(lambda: state(broker, "other").queued == 1)
        assert age(broker, "other") <= LATE

    @pytest.mark.parametrize("again", ["retry", "replay", "edit"])
    def test_one_that_runs_again_is_as_old_as_that(self, broker: Broker, again: str) -> None:
        """Yesterday's failures, retried today, are no queue that has stood for a day; nor have they waited for one when they begin."""
        sent = envelope(enqueued_at=time.time() - 86_400)
        broker.publish([sent])
        settle(broker, take_one(broker), FAILURE)
        match again:
            case "retry":
                broker.retry(sent.id)
            case "replay":
                broker.replay(DeadFilter())
            case _:
                broker.edit(sent.id, 0, bytes(sent.args))
        assert state(broker).queued == 1
        assert age(broker) <= LATE
        delivered = decode(take_one(broker).body)
        assert delivered.enqueued_at == sent.enqueued_at
        assert delivered.not_before is not None
        assert abs(time.time() - delivered.not_before) <= LATE

    def test_what_was_revoked_is_not_the_oldest(self, broker: Broker) -> None:
        now = time.time()
        old = [envelope(enqueued_at=now - 7200) for _ in range(30)]
        broker.publish([*old, envelope(enqueued_at=now - 60)])
        for each in old:
            broker.revoke(each.id)
        assert 60 - LATE <= age(broker) <= 60 + LATE

    def test_a_producer_whose_clock_is_ahead_makes_nothing_negative(self, broker: Broker) -> None:
        broker.publish([envelope(enqueued_at=time.time() + 3600)])
        assert age(broker) == 0.0

    # -- which queues -----------------------------------------------------------------------------------------------------------

    def test_a_queue_that_was_used_is_shown_with_zeros(self, broker: Broker, other: Broker) -> None:
        assert broker.queue_states() == []
        broker.publish([envelope(queue="b"), envelope(queue="a")])
        for queue in ("a", "b"):
            settle(broker, take_one(broker, queues=[queue]), SUCCESS)
        assert other.queue_states() == [QueueState(name="a"), QueueState(name="b")]

    def test_a_queue_that_a_living_worker_serves_is_shown(self, broker: Broker, other: Broker) -> None:
        broker.beat(replace(info(), queues=["served", "also"]))
        assert other.queue_states() == [QueueState(name="also"), QueueState(name="served")]

    def test_a_paused_queue_is_shown(self, broker: Broker, other: Broker) -> None:
        broker.pause("b/ä")
        broker.publish([envelope(queue="a")])
        assert [(each.name, each.queued, each.paused) for each in other.queue_states()] == [("a", 1, False), ("b/ä", 0, True)]
        broker.pause("a")
        broker.resume("b/ä")
        assert [(each.name, each.paused) for each in other.queue_states() if each.name == "a"] == [("a", True)]

    def test_a_paused_task_pauses_no_queue(self, broker: Broker) -> None:
        broker.pause("default", task=True)
        broker.publish([envelope()])
        assert state(broker).paused is False

    def test_they_are_in_the_order_of_their_names(self, broker: Broker) -> None:
        broker.publish([envelope(queue=queue) for queue in ("b", "Z", "a", "ä", "a/b")])
        assert [each.name for each in broker.queue_states()] == sorted(["b", "Z", "a", "ä", "a/b"])

    def test_looking_changes_nothing(self, broker: Broker, other: Broker) -> None:
        sent = [envelope(not_before=time.time() + 0.1), envelope()]
        broker.publish(sent)
        broker.publish([envelope()])
        eventually(lambda: other.queue_states()[0].queued == 3)
        assert len(take(broker)) == 3
