"""Unique locks: held from the publish to the task's end, freed by that and by an expiry that came before it ran, capped by `unique_for`."""

from __future__ import annotations

import time

import pytest

from stem_iso.brokers.base import Broker, Settlement
from stem_iso.outcome import TaskState
from stem_iso.task.envelope import Envelope
from stem_iso.task.settlement import Finish, GiveBack
from stem_iso.testing.assertions import eventually
from stem_iso.testing.contract.steps import (
    ALL,
    CANCEL,
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


def unique(**fields: object) -> Envelope:
    return envelope(**{"lock": "default/thumbs.make/cat", **fields})


def is_held(broker: Broker, by: str) -> bool:
    """A second one is refused, with the holder's id, and nothing of it is stored."""
    before, probe = broker.queues(), unique()
    return broker.publish([probe]) == [by] and broker.status([probe.id]) == [None] and broker.queues() == before


class Unique(Steps):
    def test_held_while_ready_running_given_back_and_retrying(self, broker: Broker, other: Broker) -> None:
        sent = unique()
        broker.publish([sent])
        assert is_held(other, sent.id)
        delivery = take_one(broker)
        assert is_held(other, sent.id)
        settle(broker, delivery, GiveBack())
        assert is_held(other, sent.id)
        settle(broker, take_one(broker), next_attempt(sent, not_before=9e9))
        assert is_held(other, sent.id)

    def test_held_while_delayed(self, broker: Broker) -> None:
        sent = unique(not_before=9e9)
        broker.publish([sent])
        assert is_held(broker, sent.id)

    def test_another_key_is_free(self, broker: Broker) -> None:
        broker.publish([unique()])
        dog = unique(lock="default/thumbs.make/dog")
        assert broker.publish([dog]) == [dog.id]
        assert counts(broker) == (2, 0, 0, 0)

    def test_in_one_batch_the_first_wins(self, broker: Broker) -> None:
        first, second, plain = unique(), unique(), envelope()
        assert broker.publish([first, second, plain]) == [first.id, first.id, plain.id]
        assert counts(broker) == (2, 0, 0, 0)

    def test_a_resend_finds_its_own_lock(self, broker: Broker) -> None:
        sent = unique()
        assert broker.publish([sent]) == broker.publish([sent]) == [sent.id]
        settle(broker, take_one(broker), SUCCESS)
        broker.publish([sent])  # a resend that was long under way takes no lock for a task that has ended
        nxt = unique()
        assert broker.publish([nxt]) == [nxt.id]
        assert broker.publish([sent]) == [sent.id]
        assert broker.publish([unique(), sent]) == [nxt.id, sent.id]
        assert counts(broker) == (1, 0, 0, 0)

    @pytest.mark.parametrize("plan", [SUCCESS, FAILURE, CANCEL], ids=["success", "failure", "cancel"])
    def test_freed_by_every_end(self, broker: Broker, plan: Finish) -> None:
        sent, nxt = unique(), unique()
        broker.publish([sent])
        delivery = take_one(broker)
        settle(broker, delivery, plan)
        assert broker.publish([nxt]) == [nxt.id]
        assert is_held(broker, nxt.id)

    @pytest.mark.parametrize("how", ["revoked", "purged", "worker-lost", "revoked while running"])
    def test_freed_by_ends_that_no_worker_settles(self, broker: Broker, how: str) -> None:
        sent, nxt = unique(), unique()
        broker.publish([sent])
        if how == "revoked":
            broker.revoke(sent.id)
        elif how == "purged":
            broker.purge("default")
        else:
            delivery = take_one(broker, "doomed")
            broker.mark(delivery.receipt)
            if how != "worker-lost":
                broker.revoke(sent.id)
                assert is_held(broker, sent.id)
            broker.reclaim("alpha", "doomed")
        assert broker.publish([nxt]) == [nxt.id]

    def test_freed_and_taken_again_between_two_in_one_batch(self, broker: Broker) -> None:
        sent = [unique(), envelope()]
        broker.publish(sent)
        held = take(broker)
        broker.exchange("alpha", [Settlement(one.receipt, SUCCESS) for one in held], [], 0)
        nxt = unique()
        assert broker.publish([nxt]) == [nxt.id]

    def test_a_lost_worker_does_not_free_it(self, broker: Broker) -> None:
        sent = unique()
        broker.publish([sent])
        take_one(broker, "doomed")
        broker.reclaim("alpha", "doomed")
        assert is_held(broker, sent.id)

    def test_capped_by_unique_for_and_then_not_freed_by_its_first_holder(self, broker: Broker) -> None:
        first, second = unique(unique_for=0.2), unique()
        before = time.time()
        broker.publish([first])
        assert is_held(broker, first.id)
        delivery = take_one(broker)
        eventually(lambda: broker.publish([second]) == [second.id])
        assert time.time() - before > 0.19
        settle(broker, delivery, SUCCESS)
        assert is_held(broker, second.id)

    @pytest.mark.parametrize("state", ["ready", "given back", "awaiting its retry", "redelivered", "ready, expired long ago"])
    def test_one_that_waits_past_its_expiry_keeps_nobody_out(self, broker: Broker, other: Broker, state: str) -> None:
        sent, nxt = unique(expires=1.0 if "long ago" in state else time.time() + 0.3), unique()
        broker.publish([sent])
        if state == "given back":
            settle(broker, take_one(broker), GiveBack())
        elif state == "awaiting its retry":
            settle(broker, take_one(broker), next_attempt(sent, not_before=9e9))
        elif state == "redelivered":
            take_one(broker, "doomed")
            broker.reclaim("alpha", "doomed")
        eventually(lambda: other.publish([nxt]) == [nxt.id])
        assert time.time() >= (sent.expires or 0.0)
        ended = status(broker, sent.id)
        assert (ended.state, ended.reason) == (TaskState.CANCELLED, "expired")  # ended there: no worker with a slow clock runs it beside
        assert [(each.id, each.state, each.reason) for each in broker.unattended_ends()] == [(sent.id, TaskState.CANCELLED, "expired")]
        assert is_held(broker, nxt.id)
        assert take_one(broker).receipt.id == nxt.id
        assert counts(broker) == (0, 0, 1, 0)

    def test_one_that_runs_past_its_expiry_holds_it(self, broker: Broker) -> None:
        sent = unique(expires=time.time() + 0.2)
        broker.publish([sent])
        delivery = take_one(broker)
        eventually(lambda: time.time() > (sent.expires or 0.0))
        assert is_held(broker, sent.id)
        settle(broker, delivery, SUCCESS)
        assert broker.publish([nxt := unique()]) == [nxt.id]

    def test_an_expired_one_and_its_followers_in_one_batch(self, broker: Broker) -> None:
        late = unique(expires=1.0)
        broker.publish([late])
        first, second, plain = unique(), unique(), envelope()
        assert broker.publish([first, second, plain]) == [first.id, first.id, plain.id]
        assert counts(broker) == (2, 0, 0, 0)

    def test_an_expired_one_that_was_forgotten_leaves_nothing(self, broker: Broker) -> None:
        late, nxt = unique(expires=1.0), unique()
        broker.publish([late])
        assert broker.forget(late.id)
        assert broker.publish([nxt]) == [nxt.id]
        assert broker.status([late.id]) == [None]

    def test_a_replay_is_not_kept_out_by_an_expired_one(self, broker: Broker) -> None:
        dead, late = unique(), unique(expires=1.0)
        broker.publish([dead])
        settle(broker, take_one(broker), FAILURE)
        broker.publish([late])
        assert [one.refused for one in broker.replay(ALL, dry_run=True)] == [None]
        assert status(broker, late.id).state is TaskState.QUEUED  # a dry run ends nothing
        assert [one.refused for one in broker.replay(ALL)] == [None]
        assert is_held(broker, dead.id)
        assert status(broker, late.id).state is TaskState.CANCELLED

    def test_a_replay_takes_the_lock_or_is_refused(self, broker: Broker) -> None:
        dead, alive = unique(), unique()
        broker.publish([dead])
        settle(broker, take_one(broker), FAILURE)
        broker.publish([alive])
        for dry_run in (True, False):
            (replayed,) = broker.replay(ALL, dry_run=dry_run)
            assert (replayed.id, replayed.refused) == (dead.id, "unique")
        assert counts(broker) == (1, 0, 0, 1)
        settle(broker, take_one(broker), SUCCESS)
        (replayed,) = broker.replay(ALL)
        assert (replayed.id, replayed.run, replayed.refused) == (dead.id, 1, None)
        assert is_held(broker, dead.id)

    def test_a_replay_respects_a_lock_that_has_a_longest_life(self, broker: Broker) -> None:
        broker.publish([unique()])
        settle(broker, take_one(broker), FAILURE)
        broker.publish([unique(unique_for=60.0)])
        assert [one.refused for one in broker.replay(ALL)] == ["unique"]
        assert counts(broker) == (1, 0, 0, 1)

    def test_of_two_dead_with_one_key_one_is_replayed(self, broker: Broker) -> None:
        for _ in range(2):
            broker.publish([unique()])
            settle(broker, take_one(broker), FAILURE)
        expected = [None, "unique"]
        assert [one.refused for one in broker.replay(ALL, dry_run=True)] == expected
        assert [one.refused for one in broker.replay(ALL)] == expected
        assert counts(broker) == (1, 0, 0, 1)
