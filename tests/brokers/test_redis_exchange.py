"""Exchanges over Redis, beyond the contract: turns whose answer was lost, several queues, and what a record keeps."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from stem_iso.brokers.base import Broker, DeadFilter, Receipt, Settlement, Verdict, WorkerInfo
from stem_iso.brokers.redis.broker import RedisBroker
from stem_iso.brokers.redis.driver.client import ScriptCall, ServerCommand
from stem_iso.brokers.redis.exchange import plan_args, shared
from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.redis.records import framed, head_of, parsed, record
from stem_iso.brokers.url import open_broker
from stem_iso.outcome import TaskState
from stem_iso.task.envelope import Envelope, decode, encode
from stem_iso.task.settlement import Finish
from stem_iso.testing import eventually
from stem_iso.testing.contract.steps import (
    ALL,
    FAILURE,
    RESULT,
    SUCCESS,
    counts,
    envelope,
    ids,
    next_attempt,
    settle,
    status,
    take,
    take_one,
)

NONE = framed(None, None, None, None, None)


@pytest.fixture
def broker(redis_url: str) -> Iterator[RedisBroker]:
    broker = open_broker(redis_url)
    assert isinstance(broker, RedisBroker)
    yield broker
    broker.close()


def ask(broker: RedisBroker, sequence: int, want: int, lost: str = "", plans: Sequence[Settlement] = (), nonce: bytes = b"12345678") -> Any:
    """One turn as it goes over the wire, to be sent more than once."""
    words = [word for plan in plans for word in plan_args(plan, nonce)]
    return broker._client.call("exchange", queue_key("default"), "alpha", sequence, want, 60, lost, *words)


def leased(answer: Any) -> list[str]:
    return [id.decode() for id in answer[2][::6]]


# -- turns whose answer was lost ----------------------------------------------------------------------------------------------------------


def test_the_same_turn_again_leases_the_same_and_no_more(broker: RedisBroker) -> None:
    sent = [envelope() for _ in range(4)]
    broker.publish(sent)
    first = ask(broker, 100, 2)
    assert leased(first) == [sent[0].id, sent[1].id]
    assert sorted(leased(ask(broker, 100, 2))) == leased(first)
    assert counts(broker) == (2, 0, 2, 0)


def test_a_lost_turn_is_taken_over_as_far_as_it_is_wanted_and_cannot_happen_later(broker: RedisBroker) -> None:
    sent = [envelope() for _ in range(5)]
    broker.publish(sent)
    ask(broker, 100, 3)
    assert len(leased(ask(broker, 101, 2, "100"))) == 2
    assert len(leased(ask(broker, 102, 3, "100"))) == 3  # the third of the lost, and what waits
    assert counts(broker) == (0, 0, 5, 0)
    broker.publish([envelope()])
    assert leased(ask(broker, 100, 9)) == leased(ask(broker, 101, 9)) == []
    assert counts(broker) == (1, 0, 5, 0)


def test_a_turn_that_was_lost_before_it_came_is_refused_when_it_comes(broker: RedisBroker) -> None:
    assert leased(ask(broker, 101, 1, "100")) == []
    broker.publish([envelope()])
    assert leased(ask(broker, 100, 1)) == []
    assert len(leased(ask(broker, 102, 1))) == 1


@pytest.mark.parametrize("how", ["success", "failure", "retry", "revoked"])
def test_a_settlement_sent_again_is_answered_as_it_was_and_another_is_lost(broker: RedisBroker, how: str) -> None:
    sent = envelope()
    broker.publish([sent])
    held = take_one(broker)
    if how == "revoked":
        broker.revoke(sent.id)
    plan = {"success": SUCCESS, "failure": FAILURE, "retry": next_attempt(sent), "revoked": FAILURE}[how]
    expected = b"2" if how == "revoked" else b"1"
    for _ in range(3):
        assert ask(broker, 100, 0, plans=[Settlement(held.receipt, plan)])[0] == expected
    assert ask(broker, 100, 0, plans=[Settlement(held.receipt, plan)], nonce=b"87654321")[0] == b"0"
    assert len(broker.dead_letters(ALL)) == (how == "failure")
    assert counts(broker)[0] == (how == "retry")


def test_an_unsound_plan_changes_nothing_of_its_batch(broker: RedisBroker) -> None:
    broker.publish([envelope(), envelope()])
    held = take(broker)
    sound = plan_args(Settlement(held[0].receipt, SUCCESS), b"12345678")
    words = [*sound, "F", held[1].receipt.id, "alpha 1", b"12345678", 3, "soon", NONE]
    with pytest.raises(Exception, match="not sound"):
        broker._client.call("exchange", queue_key("default"), "alpha", 100, 0, 60, "", *words)
    assert counts(broker) == (0, 0, 2, 0)
    assert broker.exchange("alpha", [Settlement(one.receipt, SUCCESS) for one in held], [], 0).verdicts == [Verdict.DONE] * 2


def test_a_holder_from_another_process_is_found_in_any_queue(broker: RedisBroker, redis_url: str) -> None:
    broker.publish([envelope(queue="a"), envelope(queue="b")])
    held = take(broker, queues=["a", "b"])
    other = open_broker(redis_url)
    assert other.renew([one.receipt for one in held]) == []
    stranger = Receipt("nobody", "alpha", 1)
    answer = other.exchange("alpha", [Settlement(stranger, SUCCESS), *(Settlement(one.receipt, SUCCESS) for one in held)], [], 0)
    assert answer.verdicts == [Verdict.LOST, Verdict.DONE, Verdict.DONE]
    assert status(other, held[0].receipt.id).result == RESULT
    other.close()


# -- several queues ----------------------------------------------------------------------------------------------------------------------


def test_of_equal_queues_none_starves(broker: RedisBroker) -> None:
    queues = ["a", "b", "c"]
    broker.publish([envelope(queue=queue) for queue in queues for _ in range(8)])
    got = Counter(take_one(broker, queues=queues).queue for _ in range(12))
    assert got == {"a": 4, "b": 4, "c": 4}


@given(
    st.dictionaries(st.sampled_from("abc"), st.one_of(st.just([]), st.lists(st.integers(0, 5), min_size=10, max_size=10))),
    st.integers(0, 40),
)
def test_shares_are_by_priority_and_as_many_as_there_are(ready: dict[str, list[int]], want: int) -> None:
    shares = shared(ready, list(ready), want)
    assert sum(shares.values()) == min(want, sum(map(sum, ready.values())))
    left = {queue: sum(counts_) - shares.get(queue, 0) for queue, counts_ in ready.items()}
    assert all(count >= 0 for count in left.values())
    given_lowest, left_highest = 10, -1
    for queue, counts_ in ready.items():
        taken = shares.get(queue, 0)
        for priority in range(9, -1, -1):
            here = min(taken, counts_[priority]) if counts_ else 0
            taken -= here
            if here:
                given_lowest = min(given_lowest, priority)
            if counts_ and counts_[priority] > here:
                left_highest = max(left_highest, priority)
    assert left_highest <= given_lowest or not shares


def test_what_an_end_has_begun_comes_with_the_same_answer_from_another_queue(broker: RedisBroker) -> None:
    broker.publish([envelope(queue="a"), envelope(queue="b")])
    (first,) = take(broker, 1, queues=["a", "b"])
    answer = broker.exchange("alpha", [Settlement(first.receipt, SUCCESS)], ["a", "b"], 2)
    assert answer.verdicts == [Verdict.DONE] and len(answer.deliveries) == 1


# -- what a record keeps -----------------------------------------------------------------------------------------------------------------

texts = st.text(max_size=20)
envelopes = st.builds(
    Envelope,
    id=texts.filter(str.isprintable),
    name=texts,
    args=st.dictionaries(texts, texts, max_size=3).map(lambda args: msgspec.Raw(msgspec.msgpack.encode(args))),
    priority=st.integers(0, 9),
    headers=st.dictionaries(texts, texts, max_size=2),
    meta=st.dictionaries(texts, st.integers(0, 9), max_size=2),
    not_before=st.none() | st.floats(0, 1e10),
    lock=st.none() | texts,
    previous=st.none() | st.binary(max_size=5),
    starts_in=st.none() | st.floats(0, 1e6),
    visibility_timeout=st.just(msgspec.UNSET) | st.none() | st.floats(1, 1e6),
    result_ttl=st.just(msgspec.UNSET) | st.none() | st.floats(0, 1e6),
)


@pytest.mark.slow
@given(envelopes)
def test_a_record_gives_back_its_envelope_and_a_head_without_what_is_large(sent: Envelope) -> None:
    data = record(sent)
    found = parsed(data)
    assert found.body == encode(sent)
    assert (found.priority, found.due, found.lock, found.starts_in) == (sent.priority, sent.not_before, sent.lock, sent.starts_in)
    assert found.visibility == (sent.visibility_timeout if isinstance(sent.visibility_timeout, float) else None)
    head = head_of(sent.id, sent.queue, data)
    assert head == msgspec.structs.replace(decode(encode(sent)), args=msgspec.Raw(b"\x80"), headers=head.headers, previous=None, extra={})


def test_a_queued_task_costs_less_than_400_bytes(broker: RedisBroker) -> None:
    args = msgspec.Raw(msgspec.msgpack.encode({"path": "x" * 125}))
    sent = [envelope(id=f"{number:036d}", args=args, enqueued_at=1.7e9) for number in range(5000)]
    assert len(encode(sent[0])) == 223
    broker.publish(sent)
    key = queue_key("default")
    used = sum(broker._client.command(key, "MEMORY", "USAGE", f"{key}:{name}", "SAMPLES", "0") or 0 for name in ("m", "r0", "g", "d"))
    assert used / len(sent) <= 400


def test_nothing_is_left_of_a_task_but_its_status(broker: RedisBroker) -> None:
    sent = envelope(lock="l", visibility_timeout=5.0)
    broker.publish([sent, envelope()])
    first, other = take(broker)
    broker.note(first.receipt, {"x": 1}, None)
    broker.mark(first.receipt)
    broker.revoke(first.receipt.id)
    broker.forget(other.receipt.id)
    broker.exchange("alpha", [Settlement(first.receipt, FAILURE), Settlement(other.receipt, SUCCESS)], [], 0)
    take(broker)
    key = queue_key("default")
    kept = {found.decode().removeprefix(key) for found in broker._client.command(key, "KEYS", f"{key}*")}
    kept = {name for name in kept if name not in (":a", ":g") and not name.startswith(":qc:")}  # the counts of a minute
    assert kept == {f":s:{sent.id}", f":s:{other.receipt.id}", ":i:alpha", ":q5"}  # q5: the list of those that were cancelled
    assert broker.status([other.receipt.id]) == [None]


def test_ids_are_what_a_producer_says(broker: Broker) -> None:
    sent = [envelope(id=id) for id in ("a b", "{x}", "ü:s:1", "%41")]
    broker.publish(sent)
    assert ids(take(broker)) == [one.id for one in sent]


def test_turns_that_only_settle_do_not_take_a_queue_s_turn(broker: RedisBroker) -> None:
    queues = ["a", "b"]
    broker.publish([envelope(queue=queue) for queue in queues for _ in range(6)])
    served: Counter[str] = Counter()
    for _ in range(6):
        held = take_one(broker, queues=queues)
        served[held.queue] += 1
        broker.exchange("alpha", [Settlement(held.receipt, SUCCESS)], queues, 0)
    assert served == {"a": 3, "b": 3}


# -- what is large, and what is many -----------------------------------------------------------------------------------------------------


@pytest.fixture
def sent(broker: RedisBroker, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each round trip."""
    found: list[int] = []
    run = broker._client.run

    def counted(calls: Sequence[ScriptCall | ServerCommand], seconds: float | None = None) -> list[Any]:
        words = (word for each in calls for word in (each.args if isinstance(each, ScriptCall) else each.words))
        found.append(sum(len(word) for word in words if isinstance(word, bytes)))
        return run(calls, seconds)

    monkeypatch.setattr(broker._client, "run", counted)
    return found


def test_many_large_results_of_one_turn_are_not_one_request(broker: RedisBroker, sent: list[int]) -> None:
    broker.publish([envelope() for _ in range(4)])
    held = take(broker)
    result = msgspec.msgpack.encode(bytes(9 << 20))
    plans = [Settlement(each.receipt, Finish(TaskState.SUCCEEDED, result=result, ttl=60)) for each in held]
    assert broker.exchange("alpha", plans, ["default"], 1).verdicts == [Verdict.DONE] * 4
    assert {record and record.result for record in broker.status(ids(held))} == {result}
    assert max(sent) < 20 << 20


def test_a_large_batch_is_not_one_request(broker: RedisBroker, sent: list[int]) -> None:
    args = msgspec.Raw(msgspec.msgpack.encode({"image": bytes(1_000_000)}))
    batch = [envelope(args=args) for _ in range(60)]
    assert broker.publish(batch) == [each.id for each in batch]
    assert counts(broker) == (60, 0, 0, 0)
    assert max(sent) < 35_000_000


def test_many_large_dead_letters_are_not_one_request(broker: RedisBroker, sent: list[int]) -> None:
    args = msgspec.Raw(msgspec.msgpack.encode({"image": bytes(150_000)}))
    broker.publish([envelope(args=args) for _ in range(100)])
    broker.exchange("alpha", [Settlement(each.receipt, FAILURE) for each in take(broker, 100)], ["default"], 0)
    before = len(sent)
    assert [replayed.refused for replayed in broker.replay(DeadFilter())] == [None] * 100
    assert counts(broker) == (100, 0, 0, 0)
    assert max(sent[before:]) < 20_000_000


def test_all_that_a_predecessor_held_comes_back_at_once_however_much(broker: RedisBroker) -> None:
    broker.publish([envelope() for _ in range(1200)])
    assert len(take(broker, 1200, "before")) == 1200
    assert len(broker.reclaim("alpha", "before")) == 1200
    assert counts(broker) == (1200, 0, 0, 0)


def test_a_lock_may_be_of_any_length(broker: RedisBroker) -> None:
    key = "default/thumbs.make/" + 100_000 * "k"
    first, other = envelope(lock=key), envelope(lock=key + "!")
    assert broker.publish([first, envelope(lock=key), other]) == [first.id, first.id, other.id]
    settle(broker, take(broker)[0], SUCCESS)
    again = envelope(lock=key)
    assert broker.publish([again]) == [again.id]


def test_tasks_of_the_same_id_in_two_queues_are_two_tasks(broker: RedisBroker) -> None:
    queues = ["a", "b"]
    broker.publish([envelope(id="same", queue=queue) for queue in queues])
    held = take(broker, queues=queues)
    assert broker.renew([each.receipt for each in held]) == []
    assert broker.exchange("alpha", [Settlement(each.receipt, SUCCESS) for each in held], [], 0).verdicts == [Verdict.DONE] * 2
    assert broker.queues() == []


def test_a_grace_is_not_lengthened_by_a_clock_that_is_set_back(broker: RedisBroker, redis_url: str) -> None:
    assert broker.reclaim("alpha") == []
    broker.publish([envelope(visibility_timeout=0.01)])
    take_one(broker, "dead")
    now = time.time()
    with redis.Redis.from_url(redis_url) as plain:
        plain.set("si:{default}:seen", f"{now + 3600} {now + 3606}")  # a look of an hour from now
        broker.reclaim("alpha")
        assert now < float(plain.get("si:{default}:seen").split()[1]) < now + 10


@pytest.mark.parametrize(("row", "claimed"), [(8.0, False), (61.0, True)])
def test_a_server_that_goes_away_again_within_a_grace_begins_another_but_not_for_ever(
    broker: RedisBroker, redis_url: str, row: float, claimed: bool
) -> None:
    assert broker.reclaim("alpha") == []  # it has been here before
    broker.publish([envelope(visibility_timeout=0.01)])
    take_one(broker, "dead")
    with redis.Redis.from_url(redis_url) as plain:
        eventually(lambda: plain.zcount("si:{default}:z", 0, time.time() - 0.001) == 1)  # it has run out
        now = time.time()
        plain.set("si:{default}:seen", f"{now - 4} {now - 1} {now - row}")  # the last look was in a grace that is over by now
        assert bool(broker.reclaim("alpha")) is claimed


@pytest.mark.parametrize(
    ("ago", "fresh", "claimed"),
    [(4.0, True, True), (4.0, False, False), (10_000_000.0, True, False), (10_000_000.0, False, False)],
    ids=["come to a server that was up", "was there", "come to a server that is back", "was there when it came back"],
)
def test_who_has_just_come_to_a_server_that_was_up_all_the_time_waits_for_nobody(
    redis_url: str, ago: float, fresh: bool, claimed: bool
) -> None:
    """`ago`: when somebody looked last, by the server's clock; long ago: it came up since."""
    with redis.Redis.from_url(redis_url) as plain, closing(open_broker(redis_url)) as before:
        eventually(lambda: plain.info("server")["uptime_in_seconds"] >= ago + 2 or ago > 1000, 15)
        before.publish([envelope(visibility_timeout=0.01)])
        take_one(before, "dead")
        with closing(open_broker(redis_url)) as asker:
            if not fresh:
                plain.rename("si:{default}:z", "kept")
                assert asker.reclaim("alpha") == []
                plain.rename("kept", "si:{default}:z")
            eventually(lambda: plain.zcount("si:{default}:z", 0, time.time() - 0.001) == 1)  # it has run out
            plain.set("si:{default}:seen", f"{time.time() - ago} 0")
            assert bool(asker.reclaim("alpha")) is claimed


def test_the_record_of_a_silent_worker_stays_for_its_neighbours_longer_than_it_is_shown(broker: RedisBroker, redis_url: str) -> None:
    seen = WorkerInfo(id="w", boot="alpha", hostname="host", pid=1, queues=["default"], seats=1, spares=0, machine="here")
    broker.beat(seen)
    with redis.Redis.from_url(redis_url) as plain:
        plain.delete("si:{/gossip}:w", "si:{/gossip}:ws")  # as 30 s of silence do
        plain.hset("si:{/gossip}:p:here", "junk", b"\xc1")
        assert [each.boot for each in broker.neighbours("here")] == ["alpha"]
        assert 3600 < plain.ttl("si:{/gossip}:p:here") <= 86_400
        broker.remove_dead_worker(seen)
        assert plain.hkeys("si:{/gossip}:p:here") == [b"junk"]
