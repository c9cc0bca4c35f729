"""Questions of the Redis broker over all queues: bare ids, counts, dead letters, revocations; and that it forgets what is over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import redis

from stem_iso.brokers.base import Broker, BrokerOptions, DeadFilter, Replayed
from stem_iso.brokers.redis.keys import REGISTRY, queue_key
from stem_iso.brokers.redis.queues import LIFE
from stem_iso.brokers.url import open_broker
from stem_iso.outcome import TaskState
from stem_iso.testing.assertions import eventually
from stem_iso.testing.contract.canvas_steps import chain, compose, group, leaf
from stem_iso.testing.contract.dead_letters import bury
from stem_iso.testing.contract.steps import ALL, FAILURE, SUCCESS, counts, envelope, settle, status, take, take_one


@pytest.fixture
def brokers(redis_url: str) -> Iterator[Callable[..., Broker]]:
    """Opens another one, as another process would."""
    opened: list[Broker] = []

    def another(options: BrokerOptions | None = None) -> Broker:
        opened.append(open_broker(redis_url, options))
        return opened[-1]

    yield another
    for each in opened:
        each.close()


@pytest.fixture
def plain(redis_url: str) -> Iterator[redis.Redis]:
    """Past all that is tested."""
    with redis.Redis.from_url(redis_url) as plain:
        yield plain


# -- bare ids --------------------------------------------------------------------------------------------------------------------------


def test_a_bare_id_is_found_in_a_queue_that_was_unknown(brokers: Callable[..., Broker]) -> None:
    asker, producer = brokers(), brokers()
    assert asker.status(["nobody"]) == [None]
    for number in range(3):
        sent = envelope(queue=f"new-{number}")
        producer.publish([sent])
        assert status(asker, sent.id).queue == f"new-{number}"
        assert asker.revoke(sent.id)


def test_a_wrong_hint_costs_a_look_and_no_answer(brokers: Callable[..., Broker]) -> None:
    broker, asker, sent = brokers(), brokers(), envelope(queue="b")
    broker.publish([sent, envelope(queue="a")])
    (found,) = asker.status([sent.id], "a")
    assert found is not None and found.queue == "b"
    assert asker.wait(settled(broker, sent.id, "b"), 1, "never-used").state is TaskState.SUCCEEDED
    assert asker.forget(sent.id, "a")
    assert asker.status([sent.id], "b") == [None]


def settled(broker: Broker, id: str, queue: str) -> str:
    settle(broker, take_one(broker, queues=[queue]), SUCCESS)
    return id


def test_the_order_of_the_answer_is_that_of_the_question(brokers: Callable[..., Broker]) -> None:
    broker = brokers()
    sent = [envelope(queue=f"q{number % 5}") for number in range(40)]
    broker.publish(sent)
    asked = [one.id for one in reversed(sent)] + ["nobody", sent[0].id]
    found = brokers().status(asked)
    assert [one and one.id for one in found] == [*asked[:-2], None, sent[0].id]


def test_queue_names_of_any_kind_keep_apart(brokers: Callable[..., Broker]) -> None:
    broker = brokers()
    names = ["a", "{a}", "a}", "%7Ba}", "a/b", "ä", "a b", "c/x", "b/x", "/queues"]
    for name in names:
        broker.publish([envelope(queue=name)])
    assert [(each.name, each.queued) for each in brokers().queues()] == [(name, 1) for name in sorted(names)]


# -- the registry ----------------------------------------------------------------------------------------------------------------------


def unused(plain: redis.Redis, *queues: str) -> None:
    """As if a week had passed since somebody used them."""
    for queue in queues:
        plain.zincrby(REGISTRY, -LIFE - 1, queue)


def test_a_queue_that_nobody_uses_is_forgotten_once_it_is_empty(brokers: Callable[..., Broker], plain: redis.Redis) -> None:
    broker = brokers()
    broker.publish([envelope(queue="full"), envelope(queue="empty")])
    settle(broker, take_one(broker, queues=["empty"]), SUCCESS)
    unused(plain, "full", "empty")
    eventually(lambda: broker.sweep() == 0)
    assert plain.zrange(REGISTRY, 0, -1) == [b"full"]
    broker.publish([envelope(queue="empty")])
    assert counts(brokers(), "empty") == (1, 0, 0, 0) and counts(brokers(), "full") == (1, 0, 0, 0)


def test_nothing_of_a_finished_task_is_left_but_its_status(brokers: Callable[..., Broker], plain: redis.Redis) -> None:
    broker = brokers()
    sent = [envelope(), envelope(lock="a lock"), envelope(not_before=9e9)]
    broker.publish(sent)
    for delivery in take(broker):
        settle(broker, delivery, SUCCESS, meta={"a": 1})
    broker.revoke(sent[2].id)
    broker.unattended_ends()
    key = queue_key("default")
    kept = {k.decode().removeprefix(key + ":") for k in plain.scan_iter("si:{default}*") if plain.pttl(k) < 0}
    assert kept <= {"g", "r0", "q3", "q5"}  # the wake-up token, ids that who leases next will skip, and lists of those that have a status
    assert take(broker) == []
    statuses = {k.removeprefix(key.encode() + b":s:") for k in plain.scan_iter("si:{default}:s:*")}
    assert statuses == {*plain.zrange(f"{key}:q3", 0, -1), *plain.zrange(f"{key}:q5", 0, -1)} and len(statuses) == 3


# -- dead letters ----------------------------------------------------------------------------------------------------------------------


def test_two_who_replay_at_once_start_each_letter_once(brokers: Callable[..., Broker]) -> None:
    broker = brokers()
    bury(broker, *(envelope(queue=f"q{number % 2}") for number in range(60)))
    said: list[list[Replayed]] = []
    replayers = [threading.Thread(target=lambda: said.append(brokers().replay(ALL))) for _ in range(3)]
    for each in replayers:
        each.start()
    for each in replayers:
        each.join()
    done = [one.id for answers in said for one in answers if one.refused is None]
    assert len(done) == len(set(done)) == 60
    assert counts(broker, "q0") == counts(broker, "q1") == (30, 0, 0, 0)


def test_of_two_letters_with_one_lock_one_is_replayed(brokers: Callable[..., Broker]) -> None:
    broker = brokers()
    first, second = envelope(lock="a lock"), envelope(lock="a lock")
    bury(broker, first)
    bury(broker, second)
    expected = [(first.id, 1, None), (second.id, 0, "unique")]
    for dry_run in (True, False):
        assert [(one.id, one.run, one.refused) for one in broker.replay(ALL, dry_run=dry_run)] == expected
    assert broker.publish([envelope(lock="a lock")]) == [first.id]
    assert [letter.id for letter in broker.dead_letters(ALL)] == [second.id]


def test_a_letter_that_is_too_old_is_gone_before_it_is_swept(brokers: Callable[..., Broker], plain: redis.Redis) -> None:
    broker = brokers(BrokerOptions(dead_letter_ttl=0.1))
    bury(broker, envelope(), envelope())
    eventually(lambda: broker.dead_letters(ALL) == [] and broker.queues() == [])
    assert broker.replay(ALL) == [] and plain.hlen("si:{default}:x") == 2
    assert (broker.sweep(), broker.sweep()) == (2, 0)
    assert plain.exists("si:{default}:x", "si:{default}:xd") == 0


def test_a_letter_whose_task_lives_again_stays_dead(brokers: Callable[..., Broker]) -> None:
    broker, sent = brokers(), envelope()
    bury(broker, sent)
    broker.forget(sent.id)
    broker.publish([sent])
    assert [one.refused for one in broker.replay(ALL, dry_run=True)] == ["active"]
    assert [one.refused for one in broker.replay(ALL)] == ["active"]
    assert len(take(broker)) == 1 and len(broker.dead_letters(DeadFilter(ids=[sent.id]))) == 1


# -- revocations ------------------------------------------------------------------------------------------------------------------------


def test_a_revoke_and_a_lease_at_once_never_lose_the_revoke(brokers: Callable[..., Broker]) -> None:
    worker, asker = brokers(), brokers()
    for _ in range(40):
        sent = envelope()
        worker.publish([sent])
        revoked = threading.Thread(target=asker.revoke, args=(sent.id,))
        revoked.start()
        deliveries = take(worker)
        revoked.join()
        if deliveries:
            assert [order.receipt for order in worker.revocations("alpha")] == [deliveries[0].receipt]
            settle(worker, deliveries[0], FAILURE)
        assert (status(asker, sent.id).state, status(asker, sent.id).reason) == (TaskState.CANCELLED, "revoked")
    assert worker.dead_letters(ALL) == []


def test_what_was_revoked_is_not_published_once_more_by_a_late_resend(brokers: Callable[..., Broker]) -> None:
    broker, sent = brokers(), envelope(result_ttl=0.0)
    broker.publish([sent])
    broker.revoke(sent.id)
    assert broker.status([sent.id]) == [None]
    assert broker.publish([sent]) == [sent.id]
    assert take(broker) == []


def test_a_purge_beside_a_producer_ends(brokers: Callable[..., Broker]) -> None:
    broker, producer = brokers(), brokers()
    broker.publish([envelope() for _ in range(1500)])
    done = threading.Event()

    def produce() -> None:
        while not done.is_set():
            producer.publish([envelope() for _ in range(20)])

    beside = threading.Thread(target=produce)
    beside.start()
    try:
        assert broker.purge("default") >= 1500
    finally:
        done.set()
        beside.join()


def test_an_unattended_end_is_reported_once_whoever_asks(brokers: Callable[..., Broker]) -> None:
    broker = brokers()
    sent = [envelope(queue=f"q{number % 3}") for number in range(250)]
    broker.publish(sent)
    for name in ("q0", "q1", "q2"):
        broker.purge(name)
    ended: list[str] = []
    askers = [brokers(), brokers()]
    for _ in range(4):
        for asker in askers:
            ended += [each.id for each in asker.unattended_ends()]
    assert sorted(ended) == sorted(one.id for one in sent)


def test_a_wide_group_is_revoked_whole(brokers: Callable[..., Broker]) -> None:
    broker = brokers()
    members = [leaf(f"member-{number}") for number in range(40)]
    compose(broker, chain(group("wide", *members), leaf("after")))
    assert brokers().revoke("after")
    assert {record and record.state for record in brokers().status([member.id for member in members] + ["wide", "after"])} == {
        TaskState.CANCELLED
    }
    assert take(broker) == [] and not broker.revoke("after")
