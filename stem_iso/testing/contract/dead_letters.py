"""Dead letters: found, replayed, purged."""

from __future__ import annotations

import time

import msgspec

from stem_iso.brokers.base import Broker, DeadFilter, Settlement
from stem_iso.outcome import TaskState
from stem_iso.task.envelope import Envelope, decode
from stem_iso.task.settlement import Finish
from stem_iso.testing.assertions import eventually
from stem_iso.testing.contract.steps import (
    ALL,
    FAILURE,
    SUCCESS,
    Steps,
    counts,
    envelope,
    ids,
    next_attempt,
    settle,
    status,
    take,
    take_one,
)


def bury(broker: Broker, *envelopes: Envelope) -> list[str]:
    broker.publish(envelopes)
    for one in envelopes:
        settle(broker, take_one(broker, queues=[one.queue]), FAILURE)
    return [one.id for one in envelopes]


class DeadLetterRules(Steps):
    def test_they_are_found_by_any_field_newest_last(self, broker: Broker) -> None:
        one, two, three = bury(broker, envelope(), envelope(name="mail.send"), envelope(queue="b"))
        assert [letter.id for letter in broker.dead_letters(ALL)] == [one, two, three]
        for which, expected in (
            (DeadFilter(ids=[three, "nobody", one]), [one, three]),
            (DeadFilter(ids=[]), []),
            (DeadFilter(queue="b"), [three]),
            (DeadFilter(name="mail.send"), [two]),
            (DeadFilter(name="mail.send", queue="b"), []),
            (DeadFilter(since=time.time() + 10), []),
            (DeadFilter(since=time.time() - 10, ids=[two]), [two]),
        ):
            assert [letter.id for letter in broker.dead_letters(which)] == expected, which

    def test_a_dry_run_changes_nothing(self, broker: Broker) -> None:
        bury(broker, envelope(), envelope())
        before = broker.dead_letters(ALL), broker.queues()
        assert [one.run for one in broker.replay(ALL, dry_run=True)] == [1, 1]
        assert (broker.dead_letters(ALL), broker.queues()) == before
        assert take(broker) == []

    def test_a_replay_is_the_same_task_in_a_new_run(self, broker: Broker) -> None:
        sent = envelope(expires=1.0, headers={"x": "1"})
        broker.publish([sent])
        take_one(broker, "doomed")
        broker.reclaim("alpha", "doomed")
        settle(broker, take_one(broker), next_attempt(sent))
        settle(broker, take_one(broker), FAILURE)
        (replayed,) = broker.replay(ALL)
        assert (replayed.id, replayed.run, replayed.refused) == (sent.id, 1, None)
        waiting = status(broker, sent.id)
        assert (waiting.state, waiting.run, waiting.attempt, waiting.redeliveries) == (TaskState.QUEUED, 1, 0, 0)
        assert (waiting.error, waiting.finished_at) == (None, None)
        assert broker.dead_letters(ALL) == []
        delivery = take_one(broker)
        again = decode(delivery.body)
        assert (again.run, again.attempt, again.expires, again.headers) == (1, 0, None, {"x": "1"})
        assert delivery.redeliveries == 0
        settle(broker, delivery, SUCCESS)
        assert status(broker, sent.id).run == 1

    def test_a_replay_of_a_replay_is_the_next_run(self, broker: Broker) -> None:
        (id,) = bury(broker, envelope())
        broker.replay(ALL)
        settle(broker, take_one(broker), FAILURE)
        (letter,) = broker.dead_letters(ALL)
        assert (letter.id, letter.run) == (id, 1)
        assert [one.run for one in broker.replay(ALL)] == [2]

    def test_a_replay_with_delay_is_hidden_until_due(self, broker: Broker) -> None:
        (id,) = bury(broker, envelope())
        broker.replay(ALL, delay=0.2)
        assert counts(broker) == (0, 1, 0, 0)
        assert take(broker) == []
        assert ids(eventually(lambda: take(broker))) == [id]

    def test_only_what_is_meant_is_replayed_or_purged(self, broker: Broker) -> None:
        one, two, three = bury(broker, envelope(), envelope(), envelope())
        assert [replayed.id for replayed in broker.replay(DeadFilter(ids=[two]))] == [two]
        assert broker.purge_dead(DeadFilter(ids=[three, "nobody"])) == 1
        assert [letter.id for letter in broker.dead_letters(ALL)] == [one]
        assert broker.purge_dead(ALL) == 1
        assert broker.purge_dead(ALL) == 0

    def test_many_are_replayed_and_purged_whole(self, broker: Broker) -> None:
        broker.publish([envelope() for _ in range(1200)])
        broker.exchange("alpha", [Settlement(one.receipt, FAILURE) for one in take(broker, 1200)], [], 0)
        assert len(broker.replay(DeadFilter(ids=[letter.id for letter in broker.dead_letters(ALL)][:700]))) == 700
        assert counts(broker) == (700, 0, 0, 500)
        assert broker.purge_dead(ALL) == 500

    def test_a_replay_wakes_an_idle_worker(self, broker: Broker, other: Broker) -> None:
        bury(broker, envelope())
        watch = broker.watch("alpha", ["default"])
        while watch.changed():
            pass
        other.replay(ALL)
        eventually(watch.changed, 1.0)
        watch.close()

    def test_bytes_that_are_no_envelope_stay_dead(self, broker: Broker) -> None:
        sent = envelope(args=msgspec.Raw(b"\xc1"))
        broker.publish([sent])
        delivery = take_one(broker)
        settle(broker, delivery, Finish(TaskState.FAILED, reason="undecodable"))
        (letter,) = broker.dead_letters(ALL)
        assert (letter.reason, letter.body) == ("undecodable", delivery.body)
        assert [one.refused for one in broker.replay(ALL)] == ["undecodable"]
        assert counts(broker) == (0, 0, 0, 1)

    def test_it_outlives_the_status_and_can_still_be_replayed(self, broker: Broker) -> None:
        sent = envelope()
        broker.publish([sent])
        settle(broker, take_one(broker), Finish(TaskState.FAILED, reason="not-retryable", ttl=0.05))
        eventually(lambda: broker.status([sent.id]) == [None])
        broker.sweep()
        assert [one.refused for one in broker.replay(ALL)] == [None]
        assert status(broker, sent.id).run == 1

    def test_the_same_id_dead_twice_is_one_dead_letter(self, broker: Broker) -> None:
        sent = envelope()
        bury(broker, sent)
        broker.forget(sent.id)
        broker.publish([sent])
        settle(broker, take_one(broker), Finish(TaskState.FAILED, reason="not-retryable"))
        assert [letter.reason for letter in broker.dead_letters(ALL)] == ["not-retryable"]

    def test_unregistered_is_given_its_grace_anew(self, broker: Broker) -> None:
        bury(broker, envelope(unregistered_since=1.0))
        broker.replay(ALL)
        assert decode(take_one(broker).body).unregistered_since is None
