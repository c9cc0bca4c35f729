"""Limits of tasks: room that is taken in one step, and given back by every end. See `limit_lines` and `rates` for the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest

from stem_iso.brokers.base import Broker, Delivery, Permit, Verdict
from stem_iso.outcome import TaskState
from stem_iso.task.envelope import Envelope
from stem_iso.task.rate_limit import Rate, TaskLimits
from stem_iso.task.settlement import Finish, GiveBack, Plan
from stem_iso.testing.assertions import eventually, throughout
from stem_iso.testing.contract.steps import CANCEL, FAILURE, SUCCESS, Steps, counts, envelope, next_attempt, settle, status, take, take_one

ONE = TaskLimits("thumbs.make", concurrency=1)
TAKEN = Permit(Verdict.DONE)


def publish(broker: Broker, count: int, **fields: object) -> list[Envelope]:
    sent = [envelope(**fields) for _ in range(count)]
    broker.publish(sent)
    return sent


def begin(broker: Broker, limits: TaskLimits, boot: str = "alpha", queues: Sequence[str] = ("default",)) -> list[Delivery]:
    """What a worker with seats to spare does: take all there is, and run what it may."""
    return [delivery for delivery in take(broker, 50, boot, queues) if broker.acquire(delivery.receipt, limits) == TAKEN]


def begun(broker: Broker, limits: TaskLimits, boot: str = "alpha") -> Delivery:
    """The next one that may begin, as soon as it may; nothing else may with it."""
    (delivery,) = eventually(lambda: begin(broker, limits, boot))
    return delivery


class LimitRules(Steps):
    def test_no_more_than_so_many_at_once_over_all_workers(self, broker: Broker, other: Broker) -> None:
        two = TaskLimits("thumbs.make", concurrency=2)
        publish(broker, 5)
        first = take_one(broker)
        assert broker.acquire(first.receipt, two) == TAKEN
        assert len(begin(other, two, "beta")) == 1
        assert counts(broker) == (0, 3, 2, 0)
        throughout(lambda: not begin(broker, two) and not begin(other, two, "beta"), 0.1)

    def test_workers_that_ask_in_one_instant_do_not_get_more(self, broker: Broker, other: Broker) -> None:
        three = TaskLimits("thumbs.make", concurrency=3)
        publish(broker, 20)
        halves = [take(broker, 10), take(other, 10, "beta")]
        taken: list[Delivery] = []
        start = threading.Barrier(2)

        def acquire_each(handle: Broker, held: list[Delivery]) -> None:
            start.wait(10)
            taken.extend(one for one in held if handle.acquire(one.receipt, three) == TAKEN)

        threads = [threading.Thread(target=acquire_each, args=pair) for pair in zip((broker, other), halves, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(taken) == 3

    @pytest.mark.parametrize("plan", [SUCCESS, FAILURE, CANCEL, GiveBack(9e5)], ids=["success", "failure", "cancel", "give back"])
    def test_every_end_makes_room(self, broker: Broker, plan: Finish | GiveBack) -> None:
        publish(broker, 2)
        first = begun(broker, ONE)
        settle(broker, first, plan)
        assert begun(broker, ONE).receipt.id != first.receipt.id

    def test_a_retry_and_a_shutdown_make_room(self, broker: Broker) -> None:
        first, second = publish(broker, 2)
        holder = begun(broker, ONE)
        plans: list[Plan] = [next_attempt(first, not_before=9e9), GiveBack()]
        settle(broker, holder, plans[0])
        holder = begun(broker, ONE)
        assert holder.receipt.id == second.id
        settle(broker, holder, plans[1])
        assert begun(broker, ONE).receipt.id == second.id

    @pytest.mark.parametrize("marked", [False, True])
    @pytest.mark.parametrize("how", ["predecessor", "expired"])
    def test_a_lost_worker_makes_room(self, broker: Broker, other: Broker, how: str, marked: bool) -> None:
        publish(broker, 1, visibility_timeout=0.05 if how == "expired" else None, priority=1)
        lost = begun(broker, ONE, "doomed")
        publish(broker, 1)
        if marked:
            assert broker.mark(lost.receipt)
        assert begin(other, ONE) == []
        eventually(lambda: other.reclaim("alpha", "doomed" if how == "predecessor" else None))
        assert (begun(other, ONE).receipt.id == lost.receipt.id) is not marked
        assert settle(broker, lost, SUCCESS) is Verdict.LOST
        throughout(lambda: not begin(other, ONE), 0.05)  # what the lost one does makes no room a second time

    def test_a_revoked_run_makes_room_when_it_has_ended(self, broker: Broker) -> None:
        publish(broker, 2)
        holder = begun(broker, ONE)
        broker.revoke(holder.receipt.id)
        assert begin(broker, ONE) == []
        assert settle(broker, holder, FAILURE) is Verdict.CANCELLED
        begun(broker, ONE)

    def test_room_is_held_as_long_as_the_lease_is_renewed(self, broker: Broker) -> None:
        publish(broker, 1, visibility_timeout=0.2)
        holder = begun(broker, ONE)
        publish(broker, 1)
        ends = time.monotonic() + 0.5

        def held() -> bool:
            return broker.renew([holder.receipt]) == [] and not broker.reclaim("beta") and not begin(broker, ONE)

        throughout(held, ends - time.monotonic())
        settle(broker, holder, SUCCESS)
        begun(broker, ONE)

    def test_asked_again_it_is_taken_still_and_counted_once(self, broker: Broker) -> None:
        both = TaskLimits("thumbs.make", Rate(2, 60.0), 2)
        publish(broker, 3)
        first, second, third = take(broker)
        assert [broker.acquire(first.receipt, both) for _ in range(3)] == [TAKEN] * 3
        assert broker.acquire(second.receipt, both) == TAKEN
        assert broker.acquire(third.receipt, both).wait > 0

    def test_one_that_is_lost_gets_nothing_and_takes_nothing(self, broker: Broker, other: Broker) -> None:
        publish(broker, 1)
        lost = take_one(broker, "doomed")
        other.reclaim("alpha", "doomed")
        assert broker.acquire(lost.receipt, ONE) == Permit(Verdict.LOST)
        begun(other, ONE)

    def test_one_that_is_revoked_while_it_is_asked_for_is_cancelled(self, broker: Broker) -> None:
        (sent,) = publish(broker, 1)
        held = take_one(broker)
        broker.revoke(sent.id)
        assert broker.acquire(held.receipt, ONE) == Permit(Verdict.CANCELLED)
        assert (status(broker, sent.id).state, status(broker, sent.id).reason) == (TaskState.CANCELLED, "revoked")
        publish(broker, 1)
        begun(broker, ONE)

    def test_buckets_do_not_hold_each_other_up(self, broker: Broker) -> None:
        publish(broker, 2)
        first, second = take(broker)
        assert broker.acquire(first.receipt, TaskLimits("thumbs.make/a", concurrency=1)) == TAKEN
        assert broker.acquire(second.receipt, TaskLimits("thumbs.make/b", concurrency=1)) == TAKEN

    def test_the_limits_that_were_given_last_hold(self, broker: Broker) -> None:
        publish(broker, 4)
        begun(broker, ONE)
        publish(broker, 1, priority=9)
        assert broker.acquire(take_one(broker).receipt, TaskLimits("thumbs.make", concurrency=3)) == TAKEN
        assert len(eventually(lambda: begin(broker, TaskLimits("thumbs.make", concurrency=3)))) == 1
        throughout(lambda: not begin(broker, TaskLimits("thumbs.make", concurrency=3)), 0.05)
