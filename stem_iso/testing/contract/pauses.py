"""Pauses of queues and tasks: they are remembered, and a delivery of a paused task is held in a line, as it was, until it is resumed."""

from __future__ import annotations

import time

import pytest

from stem_iso.brokers.base import Broker, Delivery, Permit, Verdict
from stem_iso.brokers.operations import Pauses
from stem_iso.outcome import TaskState
from stem_iso.task.envelope import Envelope, decode
from stem_iso.testing.assertions import eventually, throughout
from stem_iso.testing.contract.delays import quiet, wakes
from stem_iso.testing.contract.limits import ONE, TAKEN, publish
from stem_iso.testing.contract.steps import FAILURE, SUCCESS, Steps, counts, ids, next_attempt, settle, status, take, take_one

NAME = "thumbs.make"


def held(broker: Broker, count: int = 1, name: str = NAME, boot: str = "alpha", **fields: object) -> list[Envelope]:
    """So many new ones, taken and held."""
    sent = publish(broker, count, name=name, **fields)
    for delivery in take(broker, count, boot):
        permit = broker.hold(delivery.receipt, name)
        assert permit.verdict is Verdict.DONE and permit.wait > 0
    return sent


def all_of(broker: Broker, count: int) -> list[str]:
    """Ids of so many, in the order of their line; they come at once or soon after."""
    found: list[Delivery] = []

    def come() -> bool:
        found.extend(take(broker, 100))
        broker.sweep()
        return len(found) >= count

    eventually(come, 20.0)
    return ids(found)


class PauseRules(Steps):
    # -- what is paused ---------------------------------------------------------------------------------------------------------

    def test_queues_and_tasks_are_paused_and_resumed_by_name(self, broker: Broker, other: Broker) -> None:
        assert broker.paused() == Pauses(frozenset(), frozenset())
        assert broker.pause("images") is True
        assert broker.pause("images", task=True) is True
        assert other.pause("images") is False
        assert other.pause("ä b/c", task=True) is True
        assert broker.paused() == other.paused() == Pauses(frozenset({"images"}), frozenset({"images", "ä b/c"}))
        assert (other.resume("images"), other.resume("images"), broker.resume("nobody")) == (True, False, False)
        assert broker.paused() == Pauses(frozenset(), frozenset({"images", "ä b/c"}))
        assert (broker.resume("images", task=True), broker.resume("images", task=True)) == (True, False)
        assert broker.paused() == Pauses(frozenset(), frozenset({"ä b/c"}))

    def test_a_pause_changes_nothing_of_what_waits_or_runs(self, broker: Broker) -> None:
        publish(broker, 2)
        running = take_one(broker)
        broker.pause("default")
        broker.pause(NAME, task=True)
        assert counts(broker) == (1, 0, 1, 0)
        assert broker.renew([running.receipt]) == [] and settle(broker, running, SUCCESS) is Verdict.DONE
        assert len(take(broker)) == 1, "it is the workers who obey"

    # -- held -------------------------------------------------------------------------------------------------------------------

    def test_what_is_held_waits_as_it_was(self, broker: Broker, other: Broker) -> None:
        broker.pause(NAME, task=True)
        (sent,) = publish(broker, 1, priority=3, enqueued_at=7.0)
        delivery = take_one(broker)
        assert broker.hold(delivery.receipt, NAME).verdict is Verdict.DONE
        waiting = status(other, sent.id)
        assert (waiting.state, waiting.reason, waiting.attempt, waiting.redeliveries) == (TaskState.QUEUED, "paused", 0, 0)
        assert (waiting.not_before, waiting.worker_id) == (None, None)
        assert counts(broker) == (0, 1, 0, 0)
        assert settle(broker, delivery, SUCCESS) is Verdict.LOST and broker.renew([delivery.receipt]) == [delivery.receipt]
        throughout(lambda: not take(other), 0.1)
        other.resume(NAME, task=True)
        again = eventually(lambda: take(broker))[0]
        assert decode(again.body) == sent and again.redeliveries == 0 and again.receipt != delivery.receipt
        assert settle(broker, again, SUCCESS) is Verdict.DONE

    def test_resumed_it_is_ready_and_nothing_says_that_it_was_held(self, broker: Broker) -> None:
        broker.pause(NAME, task=True)
        (sent,) = held(broker, priority=2)
        broker.resume(NAME, task=True)
        assert (status(broker, sent.id).state, status(broker, sent.id).reason) == (TaskState.QUEUED, None)
        assert counts(broker) == (1, 0, 0, 0)

    def test_a_retry_that_is_held_keeps_its_attempt(self, broker: Broker) -> None:
        (sent,) = publish(broker, 1)
        settle(broker, take_one(broker), next_attempt(sent))
        broker.pause(NAME, task=True)
        assert broker.hold(take_one(broker).receipt, NAME).wait > 0
        assert (status(broker, sent.id).state, status(broker, sent.id).attempt) == (TaskState.RETRIED, 1)
        broker.resume(NAME, task=True)
        assert decode(take_one(broker).body).attempt == 1

    def test_the_line_keeps_the_order_of_the_queue(self, broker: Broker) -> None:
        broker.pause(NAME, task=True)
        low = [each.id for each in held(broker, 3)]
        later = [each.id for each in publish(broker, 1, name="other")]
        high = [each.id for each in held(broker, 2, priority=5)]
        broker.resume(NAME, task=True)
        assert all_of(broker, 6) == [*high, *low, *later]

    def test_a_long_line_goes_on_whole_and_in_order(self, broker: Broker) -> None:
        broker.pause(NAME, task=True)
        known = [each.id for _ in range(6) for each in held(broker, 100)]
        broker.resume(NAME, task=True)
        assert all_of(broker, len(known)) == known
        assert counts(broker) == (0, 0, len(known), 0)

    def test_other_tasks_are_not_held_up(self, broker: Broker) -> None:
        broker.pause(NAME, task=True)
        held(broker)
        publish(broker, 1, name="other")
        assert broker.hold(take_one(broker).receipt, "other") == TAKEN
        broker.pause("other", task=True)
        broker.resume("other", task=True)
        assert take(broker) == []

    def test_a_resume_wakes_an_idle_worker(self, broker: Broker, other: Broker) -> None:
        broker.pause(NAME, task=True)
        held(broker)
        watch = broker.watch("alpha", ["default"])
        take(broker)
        quiet(watch)
        other.resume(NAME, task=True)
        assert wakes(watch)
        watch.close()

    def test_what_is_not_paused_any_more_runs(self, broker: Broker, other: Broker) -> None:
        broker.pause(NAME, task=True)
        publish(broker, 2)
        first, second = take(broker)
        assert broker.hold(first.receipt, NAME).wait > 0
        other.resume(NAME, task=True)
        assert broker.hold(second.receipt, NAME) == TAKEN
        assert settle(broker, second, SUCCESS) is Verdict.DONE
        assert settle(broker, take_one(broker), SUCCESS) is Verdict.DONE
        assert counts(broker) == (0, 0, 0, 0)

    def test_paused_again_it_is_held_again(self, broker: Broker, other: Broker) -> None:
        for _ in range(3):
            broker.pause(NAME, task=True)
            if not take(other, boot="beta"):
                held(broker)
            broker.resume(NAME, task=True)
            delivery = eventually(lambda: take(broker))[0]
            broker.pause(NAME, task=True)
            assert broker.hold(delivery.receipt, NAME).wait > 0
            throughout(lambda: not take(broker), 0.05)
            broker.resume(NAME, task=True)
            settle(broker, eventually(lambda: take(broker))[0], SUCCESS)
        assert counts(broker) == (0, 0, 0, 0)

    # -- what may happen to it meanwhile ----------------------------------------------------------------------------------------

    def test_it_can_be_revoked_and_purged(self, broker: Broker) -> None:
        broker.pause(NAME, task=True)
        revoked, kept, purged = held(broker, 3)
        assert broker.revoke(revoked.id)
        assert (status(broker, revoked.id).state, status(broker, revoked.id).reason) == (TaskState.CANCELLED, "revoked")
        assert broker.purge("default") == 2
        assert status(broker, kept.id).reason == status(broker, purged.id).reason == "purged"
        (late,) = held(broker)
        broker.resume(NAME, task=True)
        assert all_of(broker, 1) == [late.id]

    def test_it_cannot_be_run_now(self, broker: Broker) -> None:
        broker.pause(NAME, task=True)
        (sent,) = held(broker)
        answer = broker.run_now(sent.id)
        assert answer is not None and answer.refused == "not-delayed"
        assert take(broker) == [] and status(broker, sent.id).reason == "paused"

    def test_edited_it_stays_held(self, broker: Broker) -> None:
        broker.pause(NAME, task=True)
        (sent,) = held(broker)
        answer = broker.edit(sent.id, 0, b"\x81\xa1a\x01")
        assert answer is not None and (answer.refused, answer.run) == (None, 1)
        assert take(broker) == [] and status(broker, sent.id).reason == "paused"
        broker.resume(NAME, task=True)
        assert bytes(decode(eventually(lambda: take(broker))[0].body).args) == b"\x81\xa1a\x01"

    def test_it_outlives_the_worker_that_held_it(self, broker: Broker, other: Broker) -> None:
        broker.pause(NAME, task=True)
        (sent,) = held(broker, boot="doomed", visibility_timeout=0.05)
        assert other.reclaim("alpha", "doomed") == []
        throughout(lambda: not other.reclaim("alpha") and not take(other), 0.2)
        other.resume(NAME, task=True)
        again = eventually(lambda: take(other))[0]
        assert (again.receipt.id, again.redeliveries) == (sent.id, 0)

    def test_one_that_held_a_limit_gives_its_room_back(self, broker: Broker) -> None:
        first, second = publish(broker, 2)
        delivery, waiting = take(broker)
        assert broker.acquire(delivery.receipt, ONE) == TAKEN
        assert broker.acquire(waiting.receipt, ONE).wait > 0
        broker.pause(NAME, task=True)
        assert broker.hold(delivery.receipt, NAME).wait > 0
        again = eventually(lambda: take(broker))[0]
        assert again.receipt.id == second.id and broker.acquire(again.receipt, ONE) == TAKEN
        settle(broker, again, SUCCESS)
        broker.resume(NAME, task=True)
        again = eventually(lambda: take(broker))[0]
        assert again.receipt.id == first.id and broker.acquire(again.receipt, ONE) == TAKEN

    # -- verdicts ---------------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("paused", [True, False])
    def test_one_that_is_lost_is_not_held(self, broker: Broker, other: Broker, paused: bool) -> None:
        publish(broker, 1)
        lost = take_one(broker, "doomed")
        if paused:
            broker.pause(NAME, task=True)
        other.reclaim("alpha", "doomed")
        assert broker.hold(lost.receipt, NAME) == Permit(Verdict.LOST)
        assert take_one(other).receipt.id == lost.receipt.id

    def test_held_twice_is_lost_the_second_time(self, broker: Broker) -> None:
        broker.pause(NAME, task=True)
        publish(broker, 1)
        delivery = take_one(broker)
        assert broker.hold(delivery.receipt, NAME).wait > 0
        assert broker.hold(delivery.receipt, NAME) == Permit(Verdict.LOST)
        assert settle(broker, delivery, FAILURE) is Verdict.LOST
        assert counts(broker) == (0, 1, 0, 0)

    def test_one_that_is_revoked_while_it_is_held_is_cancelled(self, broker: Broker) -> None:
        broker.pause(NAME, task=True)
        (sent,) = publish(broker, 1)
        delivery = take_one(broker)
        broker.revoke(sent.id)
        assert broker.hold(delivery.receipt, NAME) == Permit(Verdict.CANCELLED)
        assert (status(broker, sent.id).state, status(broker, sent.id).reason) == (TaskState.CANCELLED, "revoked")

    def test_a_resume_in_between_loses_nothing(self, broker: Broker, other: Broker) -> None:
        """Pause, hold and resume, over and over: in the end each has run once."""
        known = {each.id for each in publish(broker, 30)}
        done: list[str] = []
        until = time.monotonic() + 30
        while len(done) < len(known) and time.monotonic() < until:
            broker.pause(NAME, task=True)
            first = take(broker, 7)
            for number, delivery in enumerate(first):
                if number == len(first) // 2:
                    other.resume(NAME, task=True)
                if broker.hold(delivery.receipt, NAME) == TAKEN and settle(broker, delivery, SUCCESS) is Verdict.DONE:
                    done.append(delivery.receipt.id)
            other.resume(NAME, task=True)
        assert sorted(done) == sorted(known)
