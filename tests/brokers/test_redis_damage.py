"""One value of the store is damaged. It is the end of its own task at most: its neighbours run, and nobody is stopped.

Each case damages one value of a store with many tasks, in one way, and then does all that workers and those who look do.
"""

from __future__ import annotations

import logging
import random
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import redis

from stem_iso.brokers.base import Broker, BrokerOptions, DeadFilter, Settlement, WorkerInfo
from stem_iso.brokers.operations import LISTED_STATES, Action, Command, CommandReply, TaskCounts, TaskFilter
from stem_iso.brokers.redis.keys import REGISTRY
from stem_iso.brokers.url import open_broker
from stem_iso.outcome import Progress, TaskState
from stem_iso.task.canvas.tree import lay, leaves
from stem_iso.task.envelope import Undecodable, decode
from stem_iso.task.rate_limit import TaskLimits
from stem_iso.task.settlement import Finish, GiveBack
from stem_iso.testing.contract.canvas_steps import chain, group, leaf
from stem_iso.testing.contract.schedules import schedule
from stem_iso.testing.contract.steps import ALL, FAILURE, SUCCESS, envelope, next_attempt, take
from tests.isolate.calling import eventually

P = "si:{default}"
PLAIN = [f"plain-{number}" for number in range(6)]
LEASE = 0.15  # seconds
ONE = TaskLimits("thumbs", concurrency=1)
UNREADABLE = Finish(TaskState.FAILED, reason="undecodable")
SEEDS = 40

Damage = Callable[[bytes, random.Random], bytes]
DAMAGES: dict[str, Damage] = {
    "cut": lambda value, dice: value[: dice.randrange(len(value) or 1)],
    "emptied": lambda _, __: b"",
    "junk": lambda _, dice: dice.randbytes(dice.choice([1, 2, 3, 9, 40, 300])),
    "words": lambda _, dice: dice.choice([b"nan", b"inf", b"-1", b"x", b"x y", b"x y z", b"1e400", b"\xff \xff \xff"]),
    "overwritten": lambda value, dice: bytes(dice.randbytes(1)[0] if dice.random() < 0.3 else byte for byte in value),
    "lengthened": lambda value, dice: value + dice.randbytes(5),
}


@pytest.fixture
def plain(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, protocol=2) as plain:
        yield plain


@pytest.fixture
def broker(redis_url: str) -> Iterator[Broker]:
    with closing(open_broker(redis_url, BrokerOptions(default_visibility_timeout=LEASE, max_redeliveries=1000))) as broker:
        yield broker


def end(broker: Broker, boot: str = "beta") -> int:
    """One turn of a worker that ends what it gets, and what cannot be read as a worker does. How many those were."""
    plans = []
    for one in take(broker, 50, boot):
        try:
            decode(one.body)
            plan = SUCCESS
        except Undecodable:
            plan = UNREADABLE
        plans.append(Settlement(one.receipt, plan))
    broker.exchange(boot, plans, ["default"], 0)
    broker.reclaim(boot)
    broker.revocations(boot)
    broker.unattended_ends()
    return len(plans)


def work_until(broker: Broker, ids: list[str], done: Callable[[TaskState], bool], case: str) -> None:
    """As many turns of a worker as it takes: what another one has leased comes back when its lease ends."""

    def over() -> bool:
        end(broker)
        return all(one is not None and done(one.state) for one in broker.status(ids))

    try:
        eventually(over, case)
    except AssertionError:
        raise AssertionError(f"{case}: {broker.status(ids)}") from None


def filled(broker: Broker) -> list[str]:
    """A store in which each kind of value lies; the ids of all tasks."""
    special = ["retried", "noted", "revoked", "dead", "done", "locked", "late", "held", "in line", "kept"]
    broker.publish([envelope(id=id) for id in ("retried", "noted", "revoked", "dead", "done", "held", "in line", "kept")])
    held = {one.receipt.id: one for one in take(broker, 50, "alpha")}
    broker.note(held["noted"].receipt, {"x": 1}, Progress(50.0, "half"))
    broker.revoke("revoked")
    broker.acquire(held["held"].receipt, ONE)
    broker.acquire(held["in line"].receipt, ONE)
    broker.mark(held["kept"].receipt)
    plans = {"retried": next_attempt(decode(held["retried"].body)), "dead": FAILURE, "done": SUCCESS, "noted": GiveBack()}
    broker.exchange("alpha", [Settlement(held[id].receipt, plan) for id, plan in plans.items()], [], 0)
    broker.publish([envelope(id="locked", lock="k", visibility_timeout=LEASE, result_ttl=60.0)])
    broker.publish([envelope(id="late", not_before=time.time() + 0.1)])
    tree = chain(leaf("a"), group("g", leaf("b"), leaf("c")), leaf("d"))
    broker.compose(lay(tree, [envelope(id=each.id, name=each.name) for each in leaves(tree)]))
    broker.publish([envelope(id=id) for id in PLAIN[:3]])
    take(broker, 2, "alpha")
    broker.publish([envelope(id=id) for id in PLAIN[3:]])
    broker.pause("paused", task=True)
    broker.publish([envelope(id="paused", name="paused", priority=9)])
    broker.hold(take(broker, 1, "alpha")[0].receipt, "paused")
    broker.add_counts([TaskCounts(queue="default", name="paused", minute=int(time.time()) // 60, counts={"started": 1}, run={3: 1})])
    broker.send_command(Command(id="command", worker_id="*", action="drain"))
    broker.reply("command", CommandReply(worker_id="w"))
    broker.log_action(Action(at=1.0, by="me", action="retry"))
    broker.put_schedule(schedule())
    broker.beat(WorkerInfo(id="w", boot="alpha", hostname="h", pid=1, queues=["default"], seats=1, spares=0))
    return [*special, *PLAIN, "a", "b", "c", "d", "g"]


def looked_at(broker: Broker, ids: list[str]) -> None:
    """All that people ask for."""
    broker.status(ids)
    broker.queues()
    broker.members("g")
    broker.tree("d")
    broker.workers()
    broker.schedules()
    broker.dead_letters(ALL)
    broker.replay(ALL, dry_run=True)
    broker.sweep()
    operated(broker)


def operated(broker: Broker) -> None:
    """All that those ask for who look after the queue."""
    for which in (TaskFilter(), *(TaskFilter(states=[state]) for state in LISTED_STATES), TaskFilter(name="*", since=0.0)):
        for newest_first in (True, False):
            after, met = None, 0
            while (page := broker.list_tasks(which, 7, after, newest_first)).next is not None:
                after, met = page.next, met + 1
                assert met < 50, "the list has no end"
    broker.counts(0, 1 << 40)
    broker.queue_states()
    broker.limit_states()
    broker.pause("default")
    broker.resume("default")
    broker.pause("paused", task=True)
    broker.paused()
    broker.commands("w2", 0.0)
    broker.replies("command")
    broker.actions()
    for id in ("late", "paused", "dead"):
        broker.run_now(id)
        broker.edit(id, 0, b"\x80")


def values(plain: redis.Redis) -> list[tuple[bytes, bytes | int | None, bytes]]:
    """Each value that there is: its key, its field or place, itself."""
    found: list[tuple[bytes, bytes | int | None, bytes]] = []
    for key in sorted(plain.scan_iter()):
        kind = plain.type(key)
        if key == REGISTRY.encode():
            continue
        if kind == b"hash":
            found += [(key, name, value) for name, value in sorted(plain.hgetall(key).items())]
        elif kind == b"string":
            found.append((key, None, plain.get(key) or b""))
        elif kind == b"list":
            found += [(key, place, value) for place, value in enumerate(plain.lrange(key, 0, -1))]
    return found


def put(plain: redis.Redis, key: bytes, where: bytes | int | None, value: bytes) -> None:
    if where is None:
        plain.set(key, value, keepttl=True)
    elif isinstance(where, int):
        plain.lset(key, where, value)
    else:
        plain.hset(key, where, value)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "stem_iso.broker"]


@pytest.mark.parametrize("kind", DAMAGES)
def test_whatever_is_damaged_the_others_end_as_they_should(broker: Broker, plain: redis.Redis, kind: str) -> None:
    for seed in range(SEEDS // len(DAMAGES)):
        dice = random.Random(f"{kind} {seed}")
        plain.flushdb()
        broker.close()  # what it remembers of a store that is gone
        ids = filled(broker)
        key, where, value = dice.choice(values(plain))
        put(plain, key, where, DAMAGES[kind](value, dice))
        case = f"seed {seed}: {key!r} {where!r} of {value!r}"
        own = {id for id in PLAIN if id.encode() in (where, value) or key.endswith(id.encode())}
        try:
            looked_at(broker, ids)
            others = [id for id in PLAIN if id not in own]
            work_until(broker, others, lambda state: state is TaskState.SUCCEEDED, case)
            looked_at(broker, ids)
        except AssertionError:
            raise
        except Exception as error:
            raise AssertionError(case) from error


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("leased", [False, True], ids=["waiting", "leased"])
def test_a_record_that_cannot_be_read_is_buried_as_it_is(broker: Broker, plain: redis.Redis, damage: str, leased: bool) -> None:
    broker.publish([envelope(id=id, result_ttl=60.0) for id in PLAIN])
    if leased:
        take(broker, 50, "alpha")
    stored = plain.hget(f"{P}:m", "plain-2")
    raw = stored
    dice = random.Random(damage)
    while raw == stored or (damage == "overwritten" and raw.count(b"plain")) or (damage == "lengthened" and len(raw) < 6 + len(stored)):
        raw = DAMAGES[damage](raw, dice)
    plain.hset(f"{P}:m", "plain-2", raw)
    work_until(broker, PLAIN, lambda state: state.terminal, damage)
    assert [one.state.value for one in broker.status(PLAIN) if one] == ["succeeded"] * 2 + ["failed"] + ["succeeded"] * 3
    (letter,) = broker.dead_letters(ALL)
    assert (letter.id, letter.reason) == ("plain-2", "undecodable")
    assert raw.endswith(letter.body) or letter.body == raw
    assert [one.refused for one in broker.replay(ALL)] == ["undecodable"]
    assert broker.purge_dead(DeadFilter(ids=["plain-2"])) == 1


@pytest.mark.parametrize("lease", [b"", b"x", b"alpha", b"alpha 1", b"alpha x y z", b"\xff\xff", b"alpha 1 nan nan"])
def test_a_lease_that_cannot_be_read_comes_back_with_all_others(broker: Broker, plain: redis.Redis, lease: bytes) -> None:
    broker.publish([envelope(id=id) for id in PLAIN])
    take(broker, 50, "alpha")
    plain.hset(f"{P}:l", "plain-0", lease)
    assert all(one and one.state is TaskState.RUNNING for one in broker.status(PLAIN))
    back: set[str] = set()

    def all_back() -> bool:
        broker.reclaim("beta")
        back.update(one.receipt.id for one in take(broker, 50, "beta"))
        return back == set(PLAIN)

    eventually(all_back, "not all leases end")


def test_a_lease_without_an_end_gets_one(broker: Broker, plain: redis.Redis) -> None:
    broker.publish([envelope(id="a")])
    take(broker, 1, "alpha")
    plain.zrem(f"{P}:z", "a")
    broker.reclaim("beta")
    assert time.time() < (plain.zscore(f"{P}:z", "a") or 0.0) < time.time() + 120


@pytest.mark.parametrize("value", [b"", b"\x03", b"\x09" + struct.pack("<d", 1e11) * 9, b"\x03" + struct.pack("<d", 1e11)])
def test_a_status_that_cannot_be_read_ends_the_wait_for_it(
    broker: Broker, plain: redis.Redis, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    id = f"warned of {value!r} {plain.connection_pool.connection_kwargs.get('port')}"
    broker.publish([envelope(id=id), envelope(id="b")])
    end(broker)
    plain.set(f"{P}:s:{id}", value, keepttl=True)
    with caplog.at_level(logging.WARNING):
        found = [broker.wait(id, 5), *broker.status([id, "b"])]
    assert [(one.state.value, one.reason) if one else None for one in found] == [("failed", "undecodable")] * 2 + [("succeeded", None)]
    assert len(warnings(caplog)) == 1 and id in warnings(caplog)[0]
    assert broker.forget(id) and broker.status([id]) == [None]


@pytest.mark.parametrize("entry", [b"", b"\xff\xff\xff\xff", b"\x03\0\0\0end", b"\x04\0\0\0free\x01\0\0\0a\x01\0\0\0x"])
def test_an_entry_that_cannot_be_handed_on_is_dropped_and_holds_up_no_other(broker: Broker, plain: redis.Redis, entry: bytes) -> None:
    broker.publish([envelope(id="a")])
    plain.hset(f"{P}:out", "1", entry)

    def dropped() -> bool:
        broker.reclaim("beta")
        return plain.hlen(f"{P}:out") == 0

    eventually(dropped, "the entry stays")
    assert end(broker) == 1


def test_a_step_whose_previous_result_cannot_be_read_does_not_run_without_it(broker: Broker, plain: redis.Redis) -> None:
    tree = chain(leaf("a"), leaf("b"))
    broker.compose(lay(tree, [envelope(id=each.id, name=each.name) for each in leaves(tree)]))
    end(broker)
    plain.hset(f"{P}:o", "b", b"\x93\xc4")
    (one,) = take(broker)
    with pytest.raises(Undecodable):
        decode(one.body)
    broker.exchange("alpha", [Settlement(one.receipt, UNREADABLE)], [], 0)
    assert [(letter.id, letter.reason) for letter in broker.dead_letters(ALL)] == [("b", "undecodable")]


def test_an_id_that_is_no_text_stops_nobody(broker: Broker, plain: redis.Redis) -> None:
    broker.publish([envelope(id="a"), envelope(id="b")])
    record: Any = plain.hget(f"{P}:m", "a")
    plain.hset(f"{P}:m", b"\xff\xfe", record)
    plain.lpush(f"{P}:r0", b"\xff\xfe")
    assert end(broker) == 2
    looked_at(broker, ["a", "b"])
    assert [one.state.value for one in broker.status(["a", "b"]) if one] == ["succeeded"] * 2
