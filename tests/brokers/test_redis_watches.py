"""Wake-ups of workers and waiters on Redis: woken one by one, and still woken after connections, servers and neighbours have died."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import parse_qsl, urlsplit

import pytest
import redis

from stem_iso.brokers.base import Broker, StatusRecord, WorkWatch
from stem_iso.brokers.redis.driver.address import parse
from stem_iso.brokers.redis.driver.standalone import connect
from stem_iso.brokers.redis.keys import queue_key
from stem_iso.brokers.redis.result_watch import wait_until
from stem_iso.brokers.url import open_broker
from stem_iso.errors import BrokerUnavailable
from stem_iso.task.settlement import GiveBack
from stem_iso.testing.assertions import eventually, throughout
from stem_iso.testing.contract.delays import quiet, wakes
from stem_iso.testing.contract.steps import SUCCESS, envelope, ids, settle, status, take, take_one
from tests.servers.server import Server

Start = Callable[..., Server]


@pytest.fixture
def brokers(redis_url: str) -> Iterator[Callable[[], Broker]]:
    """Opens another one, as another process would."""
    opened: list[Broker] = []

    def another() -> Broker:
        opened.append(open_broker(redis_url))
        return opened[-1]

    yield another
    for each in opened:
        each.close()


def idle_watch(broker: Broker, boot: str, seats: int = 1) -> WorkWatch:
    """A worker that has found nothing, and sleeps."""
    watch = broker.watch(boot, ["default"])
    assert take(broker, seats, boot) == []
    quiet(watch)
    return watch


# -- workers ---------------------------------------------------------------------------------------------------------------------------


def test_one_task_wakes_one_of_many_workers(brokers: Callable[[], Broker]) -> None:
    watches = [idle_watch(brokers(), f"boot-{number}") for number in range(3)]
    brokers().publish([envelope()])
    poll = select.poll()
    for watch in watches:
        poll.register(watch.fileno(), select.POLLIN)
    assert len(poll.poll(2000)) == 1
    throughout(lambda: len(poll.poll(0)) == 1, 0.05)
    assert [watch.changed() for watch in watches].count(True) == 1


def test_many_tasks_wake_as_many_workers_as_they_need(brokers: Callable[[], Broker]) -> None:
    workers = [brokers() for _ in range(3)]
    watches = [idle_watch(broker, f"boot-{number}") for number, broker in enumerate(workers)]
    brokers().publish([envelope() for _ in range(3)])
    taken: list[str] = []

    def look() -> bool:
        for number, (broker, watch) in enumerate(zip(workers, watches, strict=True)):
            if watch.changed():
                taken.extend(ids(take(broker, 1, f"boot-{number}")))
        return len(taken) == 3

    eventually(look, 20)


def test_a_worker_whose_seats_are_taken_leaves_the_token_to_another(brokers: Callable[[], Broker]) -> None:
    busy, idle, producer = brokers(), brokers(), brokers()
    watch = idle_watch(busy, "busy")
    producer.publish([envelope()])
    assert wakes(watch) and len(take(busy, 1, "busy")) == 1
    producer.publish([envelope()])
    assert not watch.changed()
    other = idle.watch("idle", ["default"])
    assert wakes(other) and len(take(idle, 1, "idle")) == 1


def test_a_token_that_comes_while_the_last_seat_is_filled_goes_back(brokers: Callable[[], Broker]) -> None:
    busy, idle, producer = brokers(), brokers(), brokers()
    watch, other = idle_watch(busy, "busy"), None
    producer.publish([envelope()])
    eventually(lambda: select.select([watch], [], [], 0)[0], 1.0)  # it has the wake-up token, and has not looked yet
    first = take_one(idle, "idle")  # somebody else was quicker
    busy.publish([envelope()])
    assert len(take(busy, 1, "busy")) == 1
    producer.publish([envelope()])
    assert not watch.changed()
    other = idle.watch("idle", ["default"])
    settle(idle, first, SUCCESS)
    assert wakes(other) and len(take(idle, 1, "idle")) == 1


def test_a_seat_that_falls_idle_is_woken_again(brokers: Callable[[], Broker]) -> None:
    broker, producer = brokers(), brokers()
    watch = idle_watch(broker, "alpha")
    producer.publish([envelope()])
    assert wakes(watch)
    held = take_one(broker)
    settle(broker, held, SUCCESS)
    assert take(broker, 1) == []
    producer.publish([envelope()])
    assert wakes(watch) and len(take(broker, 1)) == 1


def test_who_was_woken_for_one_queue_and_took_from_another_wakes_those_who_serve_only_the_first(brokers: Callable[[], Broker]) -> None:
    both, one, producer = brokers(), brokers(), brokers()
    watch = both.watch("both", ["a", "b"])
    assert take(both, 1, "both", ["a", "b"]) == []
    producer.publish([envelope(queue="a")])
    assert wakes(watch)  # for what is in "a", and now something comes before it
    other = one.watch("one", ["a"])
    quiet(other)
    urgent = envelope(queue="b", priority=9)
    producer.publish([urgent])
    assert ids(take(both, 1, "both", ["a", "b"])) == [urgent.id]
    assert wakes(other)
    assert len(take(one, 1, "one", ["a"])) == 1


def test_what_comes_due_while_those_who_knew_of_it_are_busy_wakes_another(brokers: Callable[[], Broker]) -> None:
    knows, idle, producer = brokers(), brokers(), brokers()
    watch, other = idle_watch(knows, "knows"), idle_watch(idle, "idle")
    producer.publish([envelope(not_before=time.time() + 0.3)])
    woken = next(each for each in (watch, other) if wakes(each, 0.2))
    busy, sleeping = (knows, other) if woken is watch else (idle, watch)
    producer.publish([sent := envelope()])
    assert ids(take(busy, 1, "knows")) == [sent.id]
    quiet(sleeping)
    eventually(lambda: busy.reclaim("knows") == [] and sleeping.changed(), 20)


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
def test_a_blocking_connection_that_breaks_is_opened_anew(brokers: Callable[[], Broker], redis_url: str, kind: str) -> None:
    broker, producer = brokers(), brokers()
    watch = idle_watch(broker, "alpha")
    quiet(watch)
    with redis.Redis.from_url(redis_url) as plain:
        assert plain.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    assert wakes(watch, 3.0)  # something may have rung meanwhile
    take(broker, 1)
    quiet(watch)
    sent = envelope()
    producer.publish([sent])
    assert wakes(watch)
    assert ids(take(broker, 1)) == [sent.id]
    producer.revoke(sent.id)
    assert wakes(watch) and len(broker.revocations("alpha")) == 1


def test_a_watch_outlives_its_server(server: Start) -> None:
    started = server(aof="always")
    broker, producer = open_broker(started.url), open_broker(started.url)
    watch = idle_watch(broker, "alpha")
    started.kill()
    throughout(lambda: not watch.changed(), 0.2)
    with pytest.raises(BrokerUnavailable):
        take(broker)
    started.start()
    assert wakes(watch, 3.0)
    take(broker, 1)
    quiet(watch)
    producer.publish([envelope()])
    assert wakes(watch)
    watch.close()
    broker.close()
    producer.close()


def test_a_watch_may_be_made_while_the_server_is_away(server: Start) -> None:
    started = server()
    started.kill()
    broker = open_broker(started.url)
    watch = broker.watch("alpha", ["default"])
    assert not watch.changed()
    started.start()
    assert wakes(watch, 3.0)
    watch.close()
    broker.close()


# -- waiters ---------------------------------------------------------------------------------------------------------------------------


class Sleeper(threading.Thread):
    def __init__(self, broker: Broker, id: str, timeout: float = 10.0) -> None:
        super().__init__()
        self._broker, self._id, self._timeout = broker, id, timeout
        self.answer: StatusRecord | Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = self._broker.wait(self._id, self._timeout)
        except (TimeoutError, BrokerUnavailable) as error:
            self.answer = error

    def joined(self) -> StatusRecord | Exception | None:
        self.join(30)
        return self.answer


def registered(url: str) -> list[bytes]:
    with redis.Redis.from_url(url) as plain:
        found: list[bytes] = plain.hvals("si:{default}:e")
        return found


def left(url: str) -> list[bytes]:
    """Keys that waiters made."""
    with redis.Redis.from_url(url) as plain:
        return list(plain.scan_iter("si:{default}:e*"))


@pytest.fixture
def only_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiter looks by itself after a minute, later than any test waits."""
    monkeypatch.setattr("stem_iso.brokers.redis.result_watch.SLICE", 60.0)


@pytest.mark.usefixtures("only_woken")
def test_many_waiters_of_one_task_are_all_woken(brokers: Callable[[], Broker], redis_url: str) -> None:
    broker, sent = brokers(), envelope()
    broker.publish([sent])
    held = take_one(broker)
    sleepers = [Sleeper(brokers(), sent.id) for _ in range(8)]
    eventually(lambda: len(b" ".join(registered(redis_url)).split()) == 8, 5.0)
    settle(broker, held, SUCCESS)
    assert all(isinstance(waiter.joined(), StatusRecord) for waiter in sleepers)
    eventually(lambda: left(redis_url) == [], 20)


def test_a_waiter_that_gives_up_leaves_nothing(brokers: Callable[[], Broker], redis_url: str) -> None:
    broker, sent = brokers(), envelope()
    broker.publish([sent])
    with pytest.raises(TimeoutError):
        brokers().wait(sent.id, 0.05)
    assert left(redis_url) == []


@pytest.mark.usefixtures("only_woken")
def test_an_end_behind_the_last_look_before_the_sleep_rings(brokers: Callable[[], Broker], redis_url: str) -> None:
    broker, sent = brokers(), envelope()
    broker.publish([sent])
    held = take_one(broker)
    url = urlsplit(redis_url)
    client = connect(parse(url.scheme, url.netloc + url.path, dict(parse_qsl(url.query))))
    looks: list[StatusRecord] = []

    def look() -> StatusRecord | None:
        looks.append(status(broker, sent.id))
        if len(looks) == 2:
            settle(broker, held, SUCCESS)  # what this look has seen is over by the time it answers
        return looks[-1] if looks[-1].state.terminal else None

    began = time.monotonic()
    assert wait_until(client, lambda: queue_key("default"), sent.id, look, str, None).state.terminal
    assert (len(looks), time.monotonic() - began < 30) == (3, True)
    client.close()


@pytest.mark.usefixtures("only_woken")
def test_whenever_the_end_comes_the_waiter_is_answered_at_once(brokers: Callable[[], Broker]) -> None:
    broker, waiting = brokers(), brokers()
    for _ in range(30):
        sent = envelope()
        broker.publish([sent])
        held = take_one(broker)
        waiter = Sleeper(waiting, sent.id)
        settle(broker, held, SUCCESS)  # at whatever step the waiter is
        assert isinstance(waiter.joined(), StatusRecord)


def test_a_waiter_whose_connection_is_cut_is_answered(brokers: Callable[[], Broker], redis_url: str) -> None:
    broker, sent = brokers(), envelope()
    broker.publish([sent])
    held = take_one(broker)
    waiter = Sleeper(brokers(), sent.id)
    eventually(lambda: registered(redis_url), 5.0)
    with redis.Redis.from_url(redis_url) as plain:
        plain.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    settle(broker, held, SUCCESS)
    assert isinstance(waiter.joined(), StatusRecord)


def test_what_a_killed_waiter_left_goes_with_the_task(brokers: Callable[[], Broker], redis_url: str) -> None:
    broker, sent = brokers(), envelope()
    broker.publish([sent])
    child = os.fork()
    if not child:
        try:
            open_broker(redis_url).wait(sent.id, 30)
        finally:
            os._exit(1)
    eventually(lambda: registered(redis_url), 5.0)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    settle(broker, take_one(broker), GiveBack())
    assert len(registered(redis_url)) == 1
    settle(broker, take_one(broker), SUCCESS)
    with redis.Redis.from_url(redis_url) as plain:
        assert all(0 < plain.pttl(key) <= 60_000 for key in left(redis_url))
