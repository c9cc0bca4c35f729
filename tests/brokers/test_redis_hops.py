"""Hops between slots on Redis: whoever dies between two hops, no room is lost, no limit broken, no firing missed or doubled."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

import pytest
import redis

from stem_iso.brokers.base import Broker, BrokerOptions, Permit, Receipt, ScheduleRecord, Verdict
from stem_iso.brokers.redis.broker import RedisBroker
from stem_iso.brokers.redis.driver.address import parse
from stem_iso.brokers.redis.driver.client import RedisClient, Request, ScriptCall, ServerCommand
from stem_iso.brokers.redis.driver.standalone import connect
from stem_iso.brokers.url import open_broker
from stem_iso.outcome import TaskState
from stem_iso.task.canvas.tree import lay, leaves
from stem_iso.task.rate_limit import Rate, TaskLimits
from stem_iso.task.settlement import GiveBack
from stem_iso.testing.assertions import eventually
from stem_iso.testing.contract.canvas_steps import chain, leaf
from stem_iso.testing.contract.steps import SUCCESS, envelope, ids, next_attempt, settle, take, take_one
from tests.servers.server import Server

TAKEN = Permit(Verdict.DONE)


class Died(BaseException):
    """The process ended here: nothing of ours may catch it."""


class Mortal:
    """RedisClient of a process that dies at one of its round trips: before it was sent, or when it was carried out and not answered."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._left, self._sent = -1, True
        self._meanwhile: Callable[[], object] | None = None

    def dies(self, at: int, sent: bool) -> None:
        """At the round trip of this number, from 1 on, from now on."""
        self._left, self._sent = at, sent

    def pauses(self, at: int, meanwhile: Callable[[], object]) -> None:
        """Before that round trip, while others do this."""
        self._left, self._meanwhile = at, meanwhile

    def run(self, calls: Sequence[Request], seconds: float | None = None) -> list[Any]:
        if calls:
            self._left -= 1
        if self._left == 0 and self._meanwhile is not None:
            meanwhile, self._meanwhile, self._left = self._meanwhile, None, -1
            meanwhile()
        if self._left == 0 and not self._sent:
            raise Died
        answers = self._client.run(calls, seconds)
        if self._left == 0:
            raise Died
        return answers

    def call(self, script: str, key: str, *args: Any) -> Any:
        return self.run([ScriptCall(script, key, args)])[0]

    def command(self, key: str, *words: Any) -> Any:
        return self.run([ServerCommand(key, words)])[0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def mortal(url: str) -> tuple[Mortal, RedisBroker]:
    scheme, rest = url.split("://")
    client = Mortal(connect(parse(scheme, rest.partition("?")[0], {})))
    return client, RedisBroker(cast(RedisClient, client), BrokerOptions())


@pytest.fixture
def alive(redis_url: str) -> Iterator[Broker]:
    broker = open_broker(redis_url)
    yield broker
    broker.close()


def one(name: str) -> TaskLimits:
    return TaskLimits(name, concurrency=1)


def rest_runs(broker: Broker, cases: dict[str, list[str]]) -> None:
    """Every task of each queue ends, one at a time, long before anybody looks by himself."""
    running: dict[str, Receipt] = {}

    def look() -> bool:
        for case in cases:
            broker.reclaim("alive", "doomed")
            if (held := running.pop(case, None)) is not None:
                settle(broker, next(each for each in kept if each.receipt == held), SUCCESS)
            for delivery in take(broker, 10, "alive", [case]):
                if broker.acquire(delivery.receipt, one(case)) == TAKEN:
                    assert case not in running, f"two at once, {case}"
                    running[case] = delivery.receipt
                    kept.append(delivery)
        everything = [id for sent in cases.values() for id in sent]
        return all(found is not None and found.state is TaskState.SUCCEEDED for found in broker.status(everything))

    kept: list[Any] = []
    eventually(look, 15)


def nothing_is_left(url: str, *patterns: str) -> None:
    with redis.Redis.from_url(url) as plain:
        assert [key for pattern in patterns for key in plain.scan_iter(pattern)] == []


HOPS = [(at, sent) for at in range(1, 6) for sent in (False, True)]


class TestWhoeverDiesInALimit:
    def test_taking_a_place_leaves_it_to_the_next(self, redis_url: str, alive: Broker) -> None:
        cases = {}
        for at, sent in HOPS[:4]:  # ask, take
            case = f"q{at}{sent}"
            tasks = [envelope(queue=case) for _ in range(3)]
            alive.publish(tasks)
            cases[case] = [each.id for each in tasks]
            client, doomed = mortal(redis_url)
            held = take(doomed, 2, "doomed", [case])
            client.dies(at, sent)
            with pytest.raises(Died):
                doomed.acquire(held[0].receipt, one(case))
        rest_runs(alive, cases)
        nothing_is_left(redis_url, "si:{b/*")

    def test_refused_a_place_stands_in_nobodys_way(self, redis_url: str, alive: Broker) -> None:
        cases, holders = {}, []
        for at, sent in HOPS[:6]:  # ask, take, line_up
            case = f"q{at}{sent}"
            tasks = [envelope(queue=case) for _ in range(4)]
            alive.publish(tasks)
            cases[case] = [each.id for each in tasks]
            holder = take_one(alive, "alive", [case])
            assert alive.acquire(holder.receipt, one(case)) == TAKEN
            client, doomed = mortal(redis_url)
            first, second = take(doomed, 2, "doomed", [case])
            assert doomed.acquire(first.receipt, one(case)).wait > 0
            client.dies(at, sent)
            with pytest.raises(Died):
                doomed.acquire(second.receipt, one(case))
            holders.append(holder)
        for holder in holders:
            settle(alive, holder, SUCCESS)
        rest_runs(alive, cases)
        nothing_is_left(redis_url, "si:{b/*")

    def test_giving_room_has_it_given_by_another(self, redis_url: str, alive: Broker) -> None:
        cases = {}
        for at, sent in HOPS:  # exchange, free, call, free, ack
            case = f"q{at}{sent}"
            tasks = [envelope(queue=case) for _ in range(3)]
            alive.publish(tasks)
            cases[case] = [each.id for each in tasks]
            client, doomed = mortal(redis_url)
            holder = take_one(doomed, "doomed", [case])
            assert doomed.acquire(holder.receipt, one(case)) == TAKEN
            for delivery in take(alive, 2, "alive", [case]):
                assert alive.acquire(delivery.receipt, one(case)).wait > 0
            client.dies(at, sent)
            with pytest.raises(Died):
                settle(doomed, holder, SUCCESS)
        rest_runs(alive, cases)
        nothing_is_left(redis_url, "si:{b/*")


class TestWhoeverDiesInAPause:
    def paused(self, redis_url: str, alive: Broker, case: str) -> tuple[Mortal, RedisBroker, list[str]]:
        alive.pause(case, task=True)
        sent = [envelope(queue=case, name=case) for _ in range(3)]
        alive.publish(sent)
        return *mortal(redis_url), [each.id for each in sent]

    def all_run(self, alive: Broker, cases: dict[str, list[str]]) -> None:
        def look() -> bool:
            alive.reclaim("alive", "doomed")
            alive.sweep()
            for delivery in take(alive, 50, "alive", list(cases)):
                assert alive.hold(delivery.receipt, delivery.queue) == TAKEN
                settle(alive, delivery, SUCCESS)
            everything = [id for sent in cases.values() for id in sent]
            return all(found is not None and found.state is TaskState.SUCCEEDED for found in alive.status(everything))

        eventually(look, 15)

    def test_holding_one_has_it_run_with_all_others_when_it_is_resumed(self, redis_url: str, alive: Broker) -> None:
        cases = {}
        for at, sent in HOPS[:8]:  # paused?, ask, park, defer
            case = f"q{at}{sent}"
            client, doomed, cases[case] = self.paused(redis_url, alive, case)
            first, second = take(doomed, 2, "doomed", [case])
            assert doomed.hold(first.receipt, case).wait > 0
            client.dies(at, sent)
            with pytest.raises(Died):
                doomed.hold(second.receipt, case)
        for case in cases:
            alive.resume(case, task=True)
        self.all_run(alive, cases)

    def test_resuming_has_it_seen_through_by_another(self, redis_url: str, alive: Broker) -> None:
        cases = {}
        for at, sent in HOPS[:8]:  # resume, open, call, free
            case = f"q{at}{sent}"
            client, doomed, cases[case] = self.paused(redis_url, alive, case)
            for delivery in take(alive, 3, "alive", [case]):
                assert alive.hold(delivery.receipt, case).wait > 0
            client.dies(at, sent)
            with pytest.raises(Died):
                doomed.resume(case, task=True)
            if case in alive.paused().tasks:  # nothing was done: it is asked once more
                assert (at, sent) == (1, False) and alive.resume(case, task=True)
        self.all_run(alive, cases)

    def test_one_that_was_resumed_on_the_way_into_the_line_is_not_kept_there(self, redis_url: str, alive: Broker) -> None:
        for at in (2, 3, 4):
            case = f"meanwhile {at}"
            client, slow, (first, *_) = self.paused(redis_url, alive, case)
            held = take_one(slow, "slow", [case])
            client.pauses(at, partial(alive.resume, case, task=True))
            if slow.hold(held.receipt, case) != TAKEN:
                assert [each.receipt.id for each in eventually(partial(take, alive, 1, "alive", [case]))] == [first]

    def test_one_that_was_paused_again_stays_paused_whoever_is_late(self, redis_url: str, alive: Broker) -> None:
        client, slow, _ = self.paused(redis_url, alive, "again")
        assert alive.hold(take_one(alive, "alive", ["again"]).receipt, "again").wait > 0
        client.pauses(2, lambda: alive.pause("again", task=True))  # between the name and the line
        assert slow.resume("again", task=True)
        assert all(alive.hold(delivery.receipt, "again").wait > 0 for delivery in take(alive, 10, "alive", ["again"]))
        alive.sweep()
        assert take(alive, 10, "alive", ["again"]) == []


def test_room_that_opens_on_the_way_into_the_line_is_not_missed(redis_url: str, alive: Broker) -> None:
    case = one("meanwhile")
    alive.publish([envelope(), envelope()])
    holder = take_one(alive)
    assert alive.acquire(holder.receipt, case) == TAKEN
    client, slow = mortal(redis_url)
    refused = take_one(slow, "slow")
    client.pauses(3, lambda: settle(alive, holder, SUCCESS))  # ask, take, and before line_up
    assert slow.acquire(refused.receipt, case).wait > 0
    again = take_one(alive)
    assert again.receipt.id == refused.receipt.id and alive.acquire(again.receipt, case) == TAKEN


def test_a_place_is_offered_to_one_at_a_time(alive: Broker) -> None:
    case, sent = one("offer"), [envelope() for _ in range(4)]
    alive.publish(sent)
    holder = take_one(alive)
    assert alive.acquire(holder.receipt, case) == TAKEN
    assert all(alive.acquire(delivery.receipt, case).wait > 0 for delivery in take(alive))
    settle(alive, holder, SUCCESS)
    assert ids(take(alive)) == [sent[1].id]
    assert alive.revoke(sent[3].id)
    assert take(alive) == []  # the first has not asked yet


def test_a_place_that_is_freed_late_and_again_takes_nothing_from_who_asked_anew(alive: Broker, redis_url: str) -> None:
    """An end that is relayed a second time, when its task stands in line anew, takes nothing from it."""
    case = one("late")
    first, second, third = (envelope() for _ in range(3))
    alive.publish([first, second])
    held = take_one(alive)
    assert alive.acquire(held.receipt, case) == TAKEN
    with redis.Redis.from_url(redis_url) as plain:
        place = plain.hget("si:{default}:b", held.receipt.id)
    settle(alive, held, next_attempt(first))
    holder = take_one(alive)
    assert holder.receipt.id == second.id and alive.acquire(holder.receipt, case) == TAKEN
    again = take_one(alive)
    assert again.receipt.id == first.id and alive.acquire(again.receipt, case).wait > 0
    with redis.Redis.from_url(redis_url) as plain:
        frames = [b"free", first.id.encode(), place, b"", b"", b"", b""]
        plain.hset("si:{default}:out", "7000", b"".join(len(frame).to_bytes(4, "little") + frame for frame in frames))
        plain.set("si:{default}:on", "7000")
    eventually(lambda: alive.reclaim("alive") or not _outbox(redis_url))
    settle(alive, holder, SUCCESS)
    (called,) = eventually(lambda: take(alive))
    assert called.receipt.id == first.id and alive.acquire(called.receipt, case) == TAKEN
    alive.publish([third])
    assert alive.acquire(take_one(alive).receipt, case).wait > 0


def _outbox(url: str) -> int:
    with redis.Redis.from_url(url) as plain:
        return cast(int, plain.hlen("si:{default}:out"))


@pytest.mark.slow
def test_under_workers_that_race_both_limits_hold_and_everything_gets_through(redis_url: str, alive: Broker) -> None:
    most, rate, tasks = 2, Rate(8, 0.2), 60
    limits = TaskLimits("crowd", rate, most)
    alive.publish([envelope(priority=number % 3) for number in range(tasks)])
    lock, running, peak = threading.Lock(), [0], [0]
    began: list[float] = []
    ended: set[str] = set()

    def work(number: int) -> None:
        dice, boot, broker = random.Random(number), f"boot-{number}", open_broker(redis_url)
        deadline = time.monotonic() + 20
        while len(ended) < tasks and time.monotonic() < deadline:
            for delivery in take(broker, dice.randint(1, 3), boot):
                asked = time.monotonic()
                if broker.acquire(delivery.receipt, limits) != TAKEN:
                    continue
                with lock:
                    running[0] += 1
                    peak[0] = max(peak[0], running[0])
                    began.append((asked + time.monotonic()) / 2)
                broker.renew([delivery.receipt])  # it runs: the others get their chance to err
                over = dice.random() < 0.8
                with lock:
                    running[0] -= 1
                    ended.update([delivery.receipt.id] if over else [])
                settle(broker, delivery, SUCCESS if over else GiveBack())
        broker.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(ended) == tasks and peak[0] <= most
    began.sort()
    gaps = [later - earlier for earlier, later in zip(began, began[rate.count :], strict=False)]
    assert min(gaps) > rate.period * 0.8  # as near as this side can see it


class TestWhoeverDiesInAFiring:
    @pytest.mark.parametrize("what", ["task", "canvas"])
    def test_leaves_it_to_the_next_and_nothing_is_sent_twice(self, redis_url: str, alive: Broker, what: str) -> None:
        now, cases = 1_800_000_000.0, {}
        for at, sent in [(at, sent) for at in range(1, 5) for sent in (False, True)]:
            name = f"{what}-{at}-{sent}"
            if what == "task":
                fired: Any = envelope(id=name, queue=name)
            else:
                tree = chain(leaf(f"{name}-a"), leaf(f"{name}-b"))
                fired = lay(tree, [envelope(id=each.id, name=each.name, queue=name) for each in leaves(tree)])
            record = ScheduleRecord(name=name, revision="first", body=b"", due=now)
            alive.put_schedule(record)
            client, doomed = mortal(redis_url)
            client.dies(at, sent)
            with suppress(Died):  # the last ones come after all hops of a task's
                doomed.fire(record, now + 60, [fired])
            alive.fire(record, now + 60, [fired])
            assert not alive.fire(record, now + 60, [fired])
            cases[name] = fired
        assert {record.due for record in alive.schedules()} == {now + 60}
        for name in cases:
            found = eventually(partial(_taken, alive, name))
            assert ids(found) == [name if what == "task" else f"{name}-a"]
            settle(alive, found[0], SUCCESS)
            assert _taken(alive, name) == [] or what == "canvas"


def _taken(broker: Broker, queue: str) -> list[Any]:
    broker.reclaim("alive")
    return take(broker, 10, "alive", [queue])


def test_a_listener_goes_on_when_the_server_was_started_anew(server: Callable[..., Server]) -> None:
    store = server(aof="always")
    broker, speaker = open_broker(store.url), open_broker(store.url)
    heard = broker.listen(timeout=10)
    speaker.emit([b"before"])
    assert next(heard) == b"before"
    store.kill()
    store.start()
    eventually(speaker.listening)
    speaker.emit([b"after"])
    assert next(heard) == b"after"
    broker.close()
    speaker.close()
