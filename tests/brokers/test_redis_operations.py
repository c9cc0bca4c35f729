"""What operators ask of Redis, where its own structures matter: lists that are hints, equal places, lines with what was revoked in them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from stem_iso.brokers.base import Broker, DeadFilter, Settlement
from stem_iso.brokers.operations import Command, TaskFilter
from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.url import open_broker
from stem_iso.outcome import TaskState
from stem_iso.task.envelope import Envelope
from stem_iso.task.settlement import Finish
from stem_iso.testing.assertions import eventually
from stem_iso.testing.contract.steps import ALL, FAILURE, SUCCESS, envelope, ids, next_attempt, settle, take, take_one

P = queue_key("default")
LISTS = ("qa", "qr", "q3", "q4", "q5")
EVERY = TaskFilter()


@pytest.fixture
def broker(redis_url: str) -> Iterator[Broker]:
    with closing(open_broker(redis_url)) as broker:
        yield broker


@pytest.fixture
def plain(redis_url: str) -> Iterator[redis.Redis]:
    """Past all that is tested."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as plain:
        yield plain


def listed(broker: Broker, which: TaskFilter = EVERY, page: int = 1000, newest_first: bool = False) -> list[str]:
    found, after = [], None
    while True:
        step = broker.list_tasks(which, page, after, newest_first)
        found += [each.record.id for each in step.tasks]
        after = step.next
        if after is None:
            return found


def published(broker: Broker, count: int, **fields: object) -> list[Envelope]:
    sent = [envelope(**fields) for _ in range(count)]
    broker.publish(sent)
    return sent


def in_lists(plain: redis.Redis) -> dict[str, int]:
    return {name: count for name in LISTS if (count := plain.zcard(f"{P}:{name}"))}


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_a_worker_whose_clock_is_wrong_gets_the_commands_from_its_start_on(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    clock = time.time
    broker.send_command(Command(id="before", worker_id="*", action="stop"))
    monkeypatch.setattr(time, "time", lambda: clock() + ahead)
    started = time.time()
    assert broker.commands("new", started) == []
    broker.send_command(Command(id="after", worker_id="*", action="drain"))
    eventually(lambda: [each.id for each in broker.commands("new", started)] == ["after"], within=15)


def test_one_dead_letter_among_many_is_found_without_the_others(broker: Broker, plain: redis.Redis) -> None:
    sent = published(broker, 2000)
    broker.exchange("alpha", [Settlement(one.receipt, FAILURE) for one in take(broker, 2000)], [], 0)
    before = int(plain.info("stats")["total_net_output_bytes"])
    assert broker.purge_dead(DeadFilter([sent[7].id, "nobody"])) == 1
    assert int(plain.info("stats")["total_net_output_bytes"]) - before < 20_000
    assert broker.purge_dead(DeadFilter(["\udcff"])) == 0
    assert sent[7].id not in {letter.id for letter in broker.dead_letters(ALL)}


# -- the lists --------------------------------------------------------------------------------------------------------------------------


def test_a_task_stands_in_one_list_at_a_time(broker: Broker, plain: redis.Redis) -> None:
    first, *_ = published(broker, 4)
    assert in_lists(plain) == {"qa": 4}
    settle(broker, take_one(broker), next_attempt(first))
    assert in_lists(plain) == {"qa": 4, "qr": 1}
    for delivery, plan in zip(take(broker), (SUCCESS, FAILURE, Finish(TaskState.CANCELLED, "expired"), SUCCESS), strict=True):
        settle(broker, delivery, plan)
    assert in_lists(plain) == {"q3": 2, "q4": 1, "q5": 1}
    (dead,) = plain.zrange(f"{P}:q4", 0, -1)
    broker.retry(dead)
    assert in_lists(plain) == {"qa": 1, "q3": 2, "q5": 1}


def test_what_has_expired_leaves_the_lists_with_the_sweeps(broker: Broker, plain: redis.Redis) -> None:
    """Those that stay a while stand before, between and behind those that do not."""
    published(broker, 1200)
    kept = []
    for number, delivery in enumerate(take(broker, 1200)):
        settle(broker, delivery, (SUCCESS, FAILURE)[number % 2])
        if number < 600 or number % 10 >= 7:
            kept.append(delivery.receipt.id)
        else:
            plain.delete(f"{P}:s:{delivery.receipt.id}")  # as the server does when its time has come
    assert listed(broker) == kept

    def swept() -> bool:
        broker.sweep()
        return sum(in_lists(plain).values()) == len(kept)

    eventually(swept, 20.0)
    assert listed(broker) == kept


def test_where_much_has_expired_a_sweep_asks_to_be_called_again(broker: Broker, plain: redis.Redis) -> None:
    published(broker, 1000)
    deliveries = take(broker, 1000)
    broker.exchange("alpha", [Settlement(delivery.receipt, SUCCESS) for delivery in deliveries], [], 0)
    assert broker.sweep() == 0
    for delivery in deliveries:
        plain.delete(f"{P}:s:{delivery.receipt.id}")
    sweeps = 0
    while broker.sweep():
        sweeps += 1
    assert sweeps and in_lists(plain).get("q3", 0) < 100


def test_what_an_older_worker_has_ended_is_found_where_it_belongs(broker: Broker, plain: redis.Redis) -> None:
    """It knows of no lists: the task stays among those alive."""
    sent, other = published(broker, 2)
    place = plain.zscore(f"{P}:qa", sent.id)
    settle(broker, take_one(broker), SUCCESS)
    plain.zrem(f"{P}:q3", sent.id)
    plain.zadd(f"{P}:qa", {sent.id: place})
    assert listed(broker, TaskFilter(states=["queued"])) == [other.id]
    broker.sweep()
    assert listed(broker, TaskFilter(states=["succeeded"])) == [sent.id] and in_lists(plain) == {"qa": 1, "q3": 1}


def test_what_an_older_producer_has_published_is_listed_when_it_has_ended(broker: Broker, plain: redis.Redis) -> None:
    sent, other = published(broker, 2)
    plain.zrem(f"{P}:qa", sent.id)
    assert listed(broker) == [other.id]
    settle(broker, take_one(broker), SUCCESS)
    assert listed(broker) == [other.id, sent.id]


def test_a_result_that_is_not_kept_is_in_no_list(broker: Broker, plain: redis.Redis) -> None:
    published(broker, 1)
    settle(broker, take_one(broker), Finish(TaskState.SUCCEEDED, ttl=0.0))
    assert in_lists(plain) == {}


def test_tasks_of_one_place_are_met_once_each_in_both_orders(broker: Broker, plain: redis.Redis) -> None:
    """Two servers of a cluster, or a batch beside a single call: equal microseconds."""
    names = [f"t-{number:03}" for number in range(60)] + ["ä", "Z", "a", "~", "t-0"]
    broker.publish([envelope(id=id, queue="default" if number % 3 else "other") for number, id in enumerate(names)])
    for queue in ("default", "other"):
        key = f"{queue_key(queue)}:qa"
        plain.zadd(key, dict.fromkeys(plain.zrange(key, 0, -1), 1700000000000000.0))
    expected = sorted(names, key=str.encode)
    for page in (1, 7, 1000):
        assert listed(broker, page=page) == expected
        assert listed(broker, page=page, newest_first=True) == expected[::-1]
    for id in names[::2]:
        plain.zrem(f"{P}:qa", id)
    position = "1700000000000000-t-030"  # which is not there any more, or never was
    assert [each.record.id for each in broker.list_tasks(EVERY, 1000, position, False).tasks] == [
        each for each in listed(broker) if each.encode() > b"t-030"
    ]


def test_an_id_that_is_no_text_does_not_stop_a_list(broker: Broker, plain: redis.Redis, redis_url: str) -> None:
    published(broker, 2)
    with redis.Redis.from_url(redis_url) as raw:
        raw.zadd(f"{P}:qa", {b"\xff\xfe": 1.0, b"\xff\xfd": 9e15})
    for newest_first in (True, False):
        assert len(listed(broker, page=1, newest_first=newest_first)) == 2


def test_few_of_a_state_among_many_others_are_found_in_one_step(broker: Broker) -> None:
    published(broker, 4000)
    late = [each.id for each in published(broker, 5, not_before=9e9)]
    published(broker, 4000)
    held = ids(take(broker, 3))
    assert [each.record.id for each in broker.list_tasks(TaskFilter(states=["delayed"]), 10, None, False).tasks] == late
    assert [each.record.id for each in broker.list_tasks(TaskFilter(states=["running"]), 10, None, False).tasks] == held
    page = broker.list_tasks(TaskFilter(states=["running", "delayed"]), 4)
    assert [each.record.id for each in page.tasks] == [*late[::-1]][:4]
    assert [each.record.id for each in broker.list_tasks(TaskFilter(states=["running", "delayed"]), 9, page.next).tasks] == [
        late[0],
        *held[::-1],
    ]


def test_a_page_of_large_tasks_is_a_short_one(broker: Broker) -> None:
    big = [envelope(headers={"x": "x" * 900_000}) for _ in range(12)]
    broker.publish(big)
    page = broker.list_tasks(EVERY, 100)
    assert 1 <= len(page.tasks) < 12 and page.next is not None
    assert sorted(listed(broker)) == sorted(each.id for each in big)


# -- states of queues -------------------------------------------------------------------------------------------------------------------


def test_a_long_list_with_what_was_revoked_is_counted_right(broker: Broker) -> None:
    long, short = published(broker, 3000), published(broker, 20, priority=4)
    for each in (*long[:2], *long[-3:], *short[:6]):
        broker.revoke(each.id)
    (found,) = broker.queue_states()
    assert found.by_priority == {0: 2995, 4: 14}
    two = published(broker, 3000, priority=9)
    broker.revoke(two[0].id)
    (found,) = broker.queue_states()
    assert found.queued == 2995 + 14 + 2999 and found.by_priority[4] == 14


def test_a_queue_that_nobody_has_used_for_a_day_is_not_shown(broker: Broker, plain: redis.Redis) -> None:
    registry = "si:{/queues}"
    broker.publish([envelope(queue="empty"), envelope(queue="full")])
    settle(broker, take_one(broker, queues=["empty"]), SUCCESS)
    assert [each.name for each in broker.queue_states()] == ["empty", "full"]
    day_ago = time.time() + 6 * 86_400 - 100
    plain.zadd(registry, {"empty": day_ago, "full": day_ago})
    assert [each.name for each in broker.queue_states()] == ["full"]


# -- counts -----------------------------------------------------------------------------------------------------------------------------


def test_counts_expire_after_a_day(broker: Broker, plain: redis.Redis) -> None:
    published(broker, 3)
    (key,) = plain.scan_iter(f"{P}:qc:*")
    assert 86_400 < plain.ttl(key) <= 86_400 + 3600
