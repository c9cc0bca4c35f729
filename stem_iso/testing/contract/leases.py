"""Leases: what a holder may do, and that nobody else may."""

from __future__ import annotations

from stem_iso.brokers.base import Broker, Receipt, Verdict
from stem_iso.outcome import Progress, TaskState
from stem_iso.testing.assertions import eventually, throughout
from stem_iso.testing.contract.steps import SUCCESS, Steps, counts, envelope, give_back, ids, settle, status, take, take_one

BRIEF = 0.25  # seconds of a lease that is meant to run out


class LeaseRules(Steps):
    def test_a_delivery_carries_its_visibility(self, broker: Broker) -> None:
        broker.publish([envelope(), envelope(visibility_timeout=7.0)])
        assert [one.visibility for one in take(broker)] == [broker.options.default_visibility_timeout, 7.0]

    def test_a_lease_that_ran_out_is_redelivered_and_counted(self, broker: Broker, other: Broker) -> None:
        sent = envelope(visibility_timeout=BRIEF)
        broker.publish([sent])
        first = take_one(broker)
        assert other.reclaim("beta") == []
        (found,) = eventually(lambda: other.reclaim("beta"))
        assert (found.id, found.name, found.queue, found.run, found.attempt) == (sent.id, sent.name, "default", 0, 0)
        assert (found.state, found.reason) == (TaskState.QUEUED, None)
        again = take_one(other, "beta")
        assert (again.receipt.id, again.redeliveries, again.body) == (sent.id, 1, first.body)
        assert (status(broker, sent.id).redeliveries, status(broker, sent.id).attempt) == (1, 0)
        assert settle(broker, first, SUCCESS) is Verdict.LOST
        assert settle(other, again, SUCCESS) is Verdict.DONE

    def test_only_the_lease_that_ran_out_is_taken(self, broker: Broker, other: Broker) -> None:
        brief, long = envelope(visibility_timeout=BRIEF), envelope(visibility_timeout=60.0)
        broker.publish([long, brief])
        take(broker)
        assert [one.id for one in eventually(lambda: other.reclaim("beta"))] == [brief.id]
        assert counts(broker) == (1, 0, 1, 0)

    def test_an_expired_lease_that_nobody_took_is_still_its_holders(self, broker: Broker, other: Broker) -> None:
        broker.publish([envelope(visibility_timeout=0.05), envelope(visibility_timeout=0.05)])
        renewed, settled = take(broker)
        throughout(lambda: counts(broker) == (0, 0, 2, 0), 0.1)
        assert broker.renew([renewed.receipt]) == []
        assert settle(broker, settled, SUCCESS) is Verdict.DONE

    def test_a_worker_never_reclaims_its_own(self, broker: Broker) -> None:
        broker.publish([envelope(visibility_timeout=0.02)])
        held = take_one(broker)
        throughout(lambda: broker.reclaim("alpha") == [], 0.15)
        assert broker.renew([held.receipt]) == []

    def test_of_its_own_it_gets_back_what_it_does_not_hold_and_when_it_has_run_out(self, broker: Broker) -> None:
        brief, long = [envelope(visibility_timeout=BRIEF) for _ in range(2)], envelope(visibility_timeout=60)
        broker.publish([*brief, long])
        held, dropped, early = take(broker)
        throughout(lambda: broker.reclaim("alpha") == [], 3 * BRIEF)  # where it does not say what it holds, it holds all
        (found,) = eventually(lambda: broker.reclaim("alpha", held=[held.receipt]))
        assert (found.id, found.state, found.boot) == (dropped.receipt.id, TaskState.QUEUED, "alpha")
        assert broker.reclaim("alpha", held=[held.receipt]) == []
        assert [settle(broker, each, SUCCESS) for each in (held, dropped, early)] == [Verdict.DONE, Verdict.LOST, Verdict.DONE]
        again = take_one(broker)
        assert (again.receipt.id, again.redeliveries) == (dropped.receipt.id, 1)

    def test_a_live_task_is_never_redelivered_however_long(self, broker: Broker, other: Broker) -> None:
        broker.publish([envelope(visibility_timeout=BRIEF)])
        held = take_one(broker)
        throughout(lambda: broker.renew([held.receipt]) == [] and other.reclaim("beta") == [], 4 * BRIEF)
        assert settle(broker, held, SUCCESS) is Verdict.DONE

    def test_extended_it_is_left_alone_until_then_and_redelivered_after(self, broker: Broker, other: Broker) -> None:
        broker.publish([envelope(visibility_timeout=0.05)])
        held = take_one(broker)
        assert broker.extend(held.receipt, 0.5)
        throughout(lambda: other.reclaim("beta") == [], 0.3)
        eventually(lambda: other.reclaim("beta"))
        assert broker.extend(held.receipt, 60) is False

    def test_extended_and_acknowledged_it_never_comes_again(self, broker: Broker, other: Broker) -> None:
        broker.publish([envelope(visibility_timeout=0.05)])
        held = take_one(broker)
        broker.extend(held.receipt, 0.1)
        settle(broker, held, SUCCESS)
        throughout(lambda: other.reclaim("beta") == [] and take(other, 1, "beta") == [], 0.2)

    def test_neither_renewing_nor_extending_moves_the_end_backwards(self, broker: Broker, other: Broker) -> None:
        broker.publish([envelope(visibility_timeout=0.05)])
        held = take_one(broker)
        broker.extend(held.receipt, 60)
        broker.extend(held.receipt, 0.01)
        assert broker.renew([held.receipt]) == []
        throughout(lambda: other.reclaim("beta") == [], 0.2)

    def test_renewing_names_the_lost_in_the_order_of_the_question(self, broker: Broker) -> None:
        broker.publish([envelope() for _ in range(4)])
        held = take(broker)
        give_back(broker, held[2])
        give_back(broker, held[0])
        stranger = Receipt("nobody", "alpha", 1)
        lost = broker.renew([held[0].receipt, held[1].receipt, stranger, held[2].receipt, held[3].receipt])
        assert lost == [held[0].receipt, stranger, held[2].receipt]

    def test_a_stale_receipt_can_do_nothing(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        stale = take_one(broker)
        give_back(broker, stale)
        take_one(broker, "beta")
        before = status(broker, sent.id)
        assert broker.renew([stale.receipt]) == [stale.receipt]
        assert broker.extend(stale.receipt, 60) is False
        assert broker.mark(stale.receipt) is False
        broker.note(stale.receipt, {"mine": True}, Progress(1.0))
        assert status(broker, sent.id) == before

    def test_nobody_can_hold_what_waits(self, broker: Broker) -> None:
        broker.publish([envelope()])
        stale = take_one(broker)
        give_back(broker, stale)
        assert broker.extend(stale.receipt, 60) is False
        assert broker.mark(stale.receipt) is False
        assert settle(broker, stale, SUCCESS) is Verdict.LOST
        assert ids(take(broker)) == [stale.receipt.id]
