"""A Redis server that is dead, dumb, or cut off in the middle of an answer, seen by producers and by a worker's broker.

Each operation is cut at each of its answers in turn: the server has done what it was asked, or a part of it, and nobody heard. Whoever asks
again must find what an operation that was never cut leaves, and be answered the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

import pytest

from stem_iso import Stem
from stem_iso import group as group_of
from stem_iso.brokers.base import Broker, BrokerOptions, Delivery, Receipt, Settlement, Verdict
from stem_iso.brokers.operations import TaskCounts, TaskFilter
from stem_iso.brokers.redis import publish as publishing_module
from stem_iso.brokers.redis.driver import client as client_module
from stem_iso.brokers.redis.keys import REGISTRY, queue_key
from stem_iso.brokers.url import open_broker
from stem_iso.errors import BrokerUnavailable
from stem_iso.events import AnyEvent
from stem_iso.task.canvas.tree import lay, leaves
from stem_iso.task.envelope import decode
from stem_iso.task.rate_limit import TaskLimits
from stem_iso.task.settlement import Finish, GiveBack, Plan
from stem_iso.testing.assertions import eventually
from stem_iso.testing.contract.canvas_steps import chain, group, leaf, previous
from stem_iso.testing.contract.schedules import schedule
from stem_iso.testing.contract.steps import ALL, FAILURE, SUCCESS, counts, envelope, next_attempt, take, take_one
from tests.servers.proxy import Proxy
from tests.servers.server import Server

V = TypeVar("V")
Start = Callable[..., Server]
PROMISED = 5.0  # seconds until a producer hears that the broker is away
ONE = TaskLimits("thumbs", concurrency=1)


def through(proxy: Proxy) -> Broker:
    return open_broker(proxy.url, BrokerOptions(default_visibility_timeout=60))


def insist(call: Callable[[], V]) -> V:
    """As a worker does, which comes back with what it has to say until the broker hears it."""
    for _ in range(20):
        try:
            return call()
        except BrokerUnavailable:
            continue
    raise AssertionError("the broker is still away")


@dataclass
class Desk:
    """One broker, and what is at hand."""

    broker: Broker
    held: dict[str, Delivery] = field(default_factory=dict)

    def take(self, *ids: str) -> None:
        """Of what is published with these ids, and is leased now."""
        self.broker.publish([envelope(id=id) for id in ids])
        self.lease()

    def lease(self) -> None:
        self.held |= {one.receipt.id: one for one in self.broker.exchange("alpha", [], ["default"], 10).deliveries}

    def receipt(self, id: str) -> Receipt:
        return self.held[id].receipt

    def settle(self, id: str, plan: Plan) -> Verdict:
        return self.broker.exchange("alpha", [Settlement(self.receipt(id), plan)], [], 0).verdicts[0]

    def statuses(self, *ids: str) -> list[Any]:
        """What a user sees of these tasks, and of the queue."""
        records = self.broker.status(ids)
        return [counts(self.broker), *((one.state, one.reason, one.attempt, one.run, one.result) if one else None for one in records)]


@dataclass(frozen=True)
class Operation:
    """`act` may be asked several times, `seen` is compared with a run without a cut."""

    name: str
    prepare: Callable[[Desk], object]
    act: Callable[[Desk], object]
    seen: Callable[[Desk], object]
    answers: bool = True  # whether the second asking must be answered as the first


def nothing(_: Desk) -> None: ...


def leased(desk: Desk) -> list[object]:
    """All that there is to lease, in the end: each once, none as if its holder had died."""
    for _ in range(4):
        desk.lease()
    return [*sorted((one.receipt.id, one.redeliveries) for one in desk.held.values()), counts(desk.broker)]


def composed(desk: Desk) -> None:
    tree = chain(leaf("a"), group("g", leaf("b"), leaf("c")), leaf("d"))
    desk.broker.compose(lay(tree, [envelope(id=each.id, name=each.name) for each in leaves(tree)]))


def members(desk: Desk) -> None:
    composed(desk)
    desk.lease()
    desk.settle("a", SUCCESS)
    eventually(lambda: desk.lease() or {"b", "c"} <= set(desk.held))


def walked(desk: Desk) -> object:
    """The rest of the canvas, run to its end."""
    found: list[object] = []
    deadline = time.monotonic() + 10
    while (outcome := desk.broker.status(["d"])[0]) is None or not outcome.state.terminal:
        assert time.monotonic() < deadline
        desk.broker.reclaim("alpha")
        for one in take(desk.broker):
            found.append((one.receipt.id, previous(decode(one.body)), one.redeliveries))
            desk.broker.exchange("alpha", [Settlement(one.receipt, SUCCESS)], [], 0)
    return sorted(found, key=str), desk.statuses("a", "b", "c", "d")


def exchanged(desk: Desk) -> list[Verdict]:
    answer = desk.broker.exchange("alpha", [Settlement(desk.receipt("a"), SUCCESS)], ["default"], 1)
    desk.held |= {one.receipt.id: one for one in answer.deliveries}
    return answer.verdicts


def failed(desk: Desk) -> object:
    """What a dead relay has left, any worker does in its next round."""
    eventually(lambda: desk.broker.reclaim("alpha") or all(one and one.state.terminal for one in desk.broker.status(["g", "d"])), 10)
    return desk.statuses("a", "b", "g", "d"), desk.settle("c", SUCCESS)


def dead(desk: Desk) -> None:
    desk.take("a")
    desk.settle("a", FAILURE)


def lined(desk: Desk) -> None:
    desk.take("a", "b")
    desk.broker.acquire(desk.receipt("a"), ONE)


def one_after_the_other(desk: Desk) -> object:
    """Who holds the only place is alone, and the next has it when it is free."""
    before = counts(desk.broker)
    desk.settle("a", SUCCESS)
    eventually(lambda: desk.broker.reclaim("alpha") or desk.lease() or counts(desk.broker)[2] == 1)
    return before, desk.broker.acquire(desk.receipt("b"), ONE)


def fired(desk: Desk) -> object:
    desk.broker.put_schedule(schedule())
    return desk.broker.fire(schedule(), schedule().due + 60, [envelope(id="a"), envelope(id="b")])


OPERATIONS = [
    Operation(
        "publish", nothing, lambda d: d.broker.publish([envelope(id="a", lock="k"), envelope(id="b")]), lambda d: d.statuses("a", "b")
    ),
    Operation(
        "publish of what another holds",
        lambda d: d.broker.publish([envelope(id="a", lock="k")]),
        lambda d: d.broker.publish([envelope(id="b", lock="k")]),
        lambda d: d.statuses("a", "b"),
    ),
    Operation("lease", lambda d: d.broker.publish([envelope(id="a"), envelope(id="b")]), Desk.lease, leased),
    Operation("success", lambda d: d.take("a"), lambda d: d.settle("a", SUCCESS), lambda d: d.statuses("a")),
    Operation(
        "failure", lambda d: d.take("a"), lambda d: d.settle("a", FAILURE), lambda d: (d.statuses("a"), len(d.broker.dead_letters(ALL)))
    ),
    Operation(
        "retry",
        lambda d: d.take("a"),
        lambda d: d.settle("a", next_attempt(decode(d.held["a"].body))),
        lambda d: (d.statuses("a"), decode(take_one(d.broker).body).attempt, take(d.broker)),
    ),
    Operation(
        "give back",
        lambda d: d.take("a"),
        lambda d: d.settle("a", GiveBack()),
        lambda d: (d.statuses("a"), take_one(d.broker).redeliveries),
    ),
    Operation(
        "settle and lease at once",
        lambda d: (d.take("a"), d.broker.publish([envelope(id="b")])),
        exchanged,
        lambda d: (d.statuses("a"), d.held.pop("a") and leased(d)),
    ),
    Operation("renew", lambda d: d.take("a"), lambda d: d.broker.renew([d.receipt("a")]), lambda d: d.statuses("a")),
    Operation("mark", lambda d: d.take("a"), lambda d: d.broker.mark(d.receipt("a")), lambda d: d.statuses("a")),
    Operation(
        "note",
        lambda d: d.take("a"),
        lambda d: d.broker.note(d.receipt("a"), {"x": 1}, None),
        lambda d: [one and one.meta for one in d.broker.status(["a"])],
    ),
    Operation(
        "reclaim",
        lambda d: d.take("a"),
        lambda d: d.broker.reclaim("beta", "alpha"),
        lambda d: [(one.receipt.id, one.redeliveries) for one in take(d.broker, boot="beta")],
        answers=False,
    ),
    Operation(
        "revoke", lambda d: d.take("a"), lambda d: d.broker.revoke("a"), lambda d: (d.statuses("a"), len(d.broker.revocations("alpha")))
    ),
    Operation(
        "purge", lambda d: d.broker.publish([envelope(id="a")]), lambda d: d.broker.purge("default"), lambda d: d.statuses("a"), False
    ),
    Operation("forget", lambda d: (d.take("a"), d.settle("a", SUCCESS)), lambda d: d.broker.forget("a"), lambda d: d.statuses("a"), False),
    Operation("replay", dead, lambda d: d.broker.replay(ALL), lambda d: (d.statuses("a"), leased(d)), False),
    Operation("acquire", lambda d: d.take("a", "b"), lambda d: d.broker.acquire(d.receipt("a"), ONE), lambda d: d.statuses("a", "b")),
    Operation("stand in line", lined, lambda d: d.broker.acquire(d.receipt("b"), ONE).verdict, one_after_the_other, False),
    Operation("compose", nothing, composed, walked),
    Operation("settle a link", lambda d: (composed(d), d.lease()), lambda d: d.settle("a", SUCCESS), walked),
    Operation("settle a member", members, lambda d: d.settle("b", SUCCESS), lambda d: (d.settle("c", SUCCESS), walked(d))),
    Operation("fail a member", members, lambda d: d.settle("b", FAILURE), failed),
    Operation("fire", nothing, fired, lambda d: (d.statuses("a", "b"), [one.due for one in d.broker.schedules()]), False),
]


def empty(server: Server) -> None:
    """But for the names of queues: a broker that has said one knows that it is known."""
    with server.plain() as plain:
        plain.delete(*[key for key in plain.scan_iter() if key != REGISTRY.encode()], "-")


@pytest.fixture
def emptied(server: Start) -> Iterator[tuple[Server, Proxy]]:
    behind = server()
    with Proxy(behind) as proxy:
        yield behind, proxy


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2], ids=["cut once", "cut twice"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_what_is_cut_in_an_answer_is_done_once(emptied: tuple[Server, Proxy], operation: Operation, times: int) -> None:
    behind, proxy = emptied
    desk = Desk(through(proxy))
    operation.prepare(desk)
    answer, seen = operation.act(desk), operation.seen(desk)
    for skip in count():
        empty(behind)
        desk = Desk(desk.broker)
        operation.prepare(desk)
        before = proxy.cuts
        proxy.cut_answer(after=skip % 3, skip=skip, times=times)
        again = insist(lambda desk=desk: operation.act(desk))  # type: ignore[misc]
        proxy.leave()
        assert (again == answer or not operation.answers) and operation.seen(desk) == seen, f"cut at answer {skip}"
        if proxy.cuts == before:
            break
    assert skip > 0, "nothing was cut"
    desk.broker.close()


PLANS: dict[str, Callable[[Desk], Plan]] = {
    "success": lambda _: SUCCESS,
    "failure": lambda _: FAILURE,
    "retry": lambda d: next_attempt(decode(d.held["a"].body)),
    "give back": lambda _: GiveBack(),
    "give back later": lambda _: GiveBack(delay=30),
}


@pytest.mark.parametrize("kind", PLANS)
@pytest.mark.parametrize("queues", [["default"], ["default", "other"]], ids=["one queue", "two queues"])
def test_what_is_stored_is_answered_as_stored_though_its_holder_renews_before_it_asks_again(
    emptied: tuple[Server, Proxy], kind: str, queues: list[str]
) -> None:
    behind, proxy = emptied
    desk = Desk(through(proxy))
    for skip in range(3):
        empty(behind)
        desk.broker.publish([envelope(id="z", queue="other")])
        desk.take("a", "b")
        plan = PLANS[kind](desk)
        settlements = [Settlement(desk.receipt("a"), plan)]
        proxy.cut_answer(to=b"EVALSHA", skip=skip, times=2)
        with suppress(BrokerUnavailable):
            assert desk.broker.exchange("alpha", settlements, queues, 1).verdicts == [Verdict.DONE]
            continue  # no answer was left to cut
        proxy.leave()
        held = [desk.receipt("a"), desk.receipt("b")]
        assert desk.broker.renew(held) == []  # as a worker does, before anything else
        desk.broker.note(desk.receipt("a"), {"x": 1}, None)
        desk.broker.mark(desk.receipt("a"))
        assert desk.broker.exchange("alpha", settlements, queues, 0).verdicts == [Verdict.DONE], f"cut at answer {skip}"
        assert desk.broker.exchange("alpha", settlements, queues, 0).verdicts == [Verdict.LOST]
        assert desk.broker.renew(held) == [desk.receipt("a")]
    desk.broker.close()


def test_what_was_lost_while_the_answer_was_cut_is_answered_as_lost(emptied: tuple[Server, Proxy], monkeypatch: pytest.MonkeyPatch) -> None:
    behind, proxy = emptied
    desk = Desk(through(proxy))
    desk.take("a")
    monkeypatch.setattr(client_module, "BUDGET", 0.3)
    proxy.stall()
    with pytest.raises(BrokerUnavailable):
        desk.settle("a", SUCCESS)  # it never arrives
    proxy.cut()
    proxy.resume()
    other = open_broker(behind.url)
    other.reclaim("beta", "alpha")
    assert take_one(other, "beta").redeliveries == 1
    assert desk.broker.renew([desk.receipt("a")]) == []  # not known yet
    assert insist(lambda: desk.settle("a", SUCCESS)) is Verdict.LOST
    assert desk.broker.renew([desk.receipt("a")]) == [desk.receipt("a")]
    desk.broker.close()
    other.close()


def test_what_is_stored_is_stored_whether_or_not_anybody_may_be_woken(server: Start) -> None:
    guarded = server()
    guarded.do("ACL", "SETUSER", "deaf", "on", ">x", "~si:*", "resetchannels", "+@all")
    broker = open_broker(guarded.url.replace("://", "://deaf:x@"))
    broker.publish([envelope(id="a"), envelope(id="b")])
    assert broker.revoke("a") is True
    assert broker.purge("default") == 1
    assert broker.put_schedule(schedule()) is True
    assert [one and one.state.value for one in broker.status(["a", "b"])] == ["cancelled"] * 2
    broker.close()


# -- away altogether ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_producer_gets_an_error_within_five_seconds_when_the_server_is_away(server: Start) -> None:
    dead, dumb, behind = server(), server(), server()
    with Proxy(behind) as proxy:
        brokers = [open_broker(url) for url in (dead.url, dumb.url, proxy.url)]
        for broker in brokers:
            broker.publish([envelope()])
        fresh = open_broker(dumb.url)
        dead.kill()
        dumb.freeze()
        proxy.stall()

        def timed_out_after(broker: Broker) -> float:
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1"):
                broker.publish([envelope(id="late")])
            return time.monotonic() - began

        with ThreadPoolExecutor() as threads:
            took = list(threads.map(timed_out_after, [*brokers, fresh]))
        assert max(took) < PROMISED + 0.25 and took[0] < 0.5, took
        dead.start()
        dumb.thaw()
        proxy.resume()
        for broker in (*brokers, fresh):
            insist(lambda broker=broker: broker.publish([envelope(id="late")]))  # type: ignore[misc]
            broker.close()
    assert counts(open_broker(dead.url)) == (1, 0, 0, 0)  # it keeps nothing over a death, and its warning says so
    assert counts(open_broker(dumb.url)) == counts(open_broker(behind.url)) == (2, 0, 0, 0)


def test_an_answer_that_never_comes_is_asked_for_again_within_the_five_seconds(emptied: tuple[Server, Proxy]) -> None:
    _, proxy = emptied
    broker = through(proxy)
    broker.publish([envelope(id="first")])
    for times in (1, 2, 4):  # the server has stored it at the first
        proxy.cut_answer(to=b"EVALSHA", times=times)
        assert broker.publish([envelope(id=f"cut {times}")]) == [f"cut {times}"]
        proxy.leave()
    tree = chain(leaf("a"), leaf("b"))
    proxy.cut_answer(to=b"compose", times=3)
    broker.compose(lay(tree, [envelope(id=each.id, name=each.name) for each in leaves(tree)]))
    proxy.leave()
    broker.reclaim("alpha")
    assert sorted(one.receipt.id for one in take(broker)) == ["a", "cut 1", "cut 2", "cut 4", "first"]
    broker.close()


@pytest.mark.slow
@pytest.mark.parametrize("many", [1, 5])
def test_after_an_unsure_answer_the_same_ids_may_be_sent_again(server: Start, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing_module, "PATIENCE", 2.5)
    behind = server()
    ids = [f"id-{number}" for number in range(many)]
    with Proxy(behind) as proxy:
        broker = through(proxy)
        broker.publish([envelope(id="first")])
        proxy.cut_answer(times=1_000_000)
        with pytest.raises(BrokerUnavailable, match=r"'id-0'.*stored.*or not: enqueue the same again with the same task_id") as caught:
            broker.publish([envelope(id=id) for id in ids])
        assert caught.value.unsure and caught.value.task_ids == tuple(ids)
        proxy.leave()
        broker.queues()
        proxy.cut_answer(to=b"compose", times=1_000_000)
        with pytest.raises(BrokerUnavailable, match=r"app\.canvas\('a'\) finds it"):
            broker.compose(lay(leaf("a"), [envelope(id="a")]))
        proxy.leave()
        assert broker.publish([envelope(id=id) for id in ids]) == ids
        broker.close()
    behind.kill()
    with closing(open_broker(behind.url)) as away, pytest.raises(BrokerUnavailable, match="no task was published") as caught:
        away.publish([envelope(id="x")])
    assert not caught.value.unsure and caught.value.task_ids == ("x",)
    behind.start()


@pytest.mark.slow
def begun(app: Stem, waits: dict[str, int]) -> bool:
    """So many waits for each id have looked once: what comes now, they wait through."""
    service = app.watcher._thread.service
    if not service or service._new or service._fresh:
        return False
    return all(len(service._waits.get(id, ())) == count for id, count in waits.items())


@pytest.mark.slow
def test_a_group_is_waited_for_through_an_outage_as_long_as_was_asked(server: Start) -> None:
    behind = server(aof="always")
    app, worker = Stem(behind.url), open_broker(behind.url)

    @app.task
    def double(number: int) -> int:
        return 2 * number

    handle = group_of(double.s(number) for number in range(3)).enqueue()
    several = handle.as_completed(timeout=30)
    taken = take(worker)
    worker.exchange("alpha", [Settlement(taken[0].receipt, SUCCESS)], [], 0)
    short = handle.as_completed(timeout=4)
    assert next(several) == next(short) == 42
    with ThreadPoolExecutor() as threads:
        rest = threads.submit(lambda: list(several))
        late = threads.submit(lambda: list(short))
        whole = threads.submit(lambda: handle.results(timeout=30))
        single = threads.submit(lambda: handle.members[1].result(timeout=4))
        eventually(lambda: begun(app, {handle.members[1].id: 1, handle.id: 1}))
        behind.kill()
        for wait in (late, single):
            with pytest.raises(TimeoutError, match=r"not ended after 4 s of waiting; the broker cannot be reached"):
                wait.result(10)
        behind.start()
        insist(lambda: worker.exchange("alpha", [Settlement(one.receipt, SUCCESS) for one in taken[1:]], [], 0))
        assert rest.result(20) == [42, 42]
        assert whole.result(20) == [42, 42, 42]
    behind.kill()
    with pytest.raises(BrokerUnavailable):  # one that was never reached is said at once
        next(handle.as_completed(timeout=30))
    app.close()
    worker.close()


@pytest.mark.slow
def test_events_are_listened_for_through_an_outage(server: Start) -> None:
    behind = server()
    listening, other, telling = (open_broker(behind.url) for _ in range(3))  # one for each thread
    stream = listening.listen(timeout=30)
    short = other.listen(timeout=1.0)
    behind.kill()
    with ThreadPoolExecutor() as threads:
        heard = threads.submit(lambda: next(stream))
        with pytest.raises(TimeoutError, match="the broker cannot be reached"):
            next(short)
        behind.start()

        def reported() -> bool:
            insist(lambda: telling.emit([b"back"]))
            return heard.done()

        eventually(reported, 20)
        assert heard.result(0) == b"back"
    for broker in (listening, other, telling):
        broker.close()


def test_a_stream_in_a_loop_ends_where_the_wait_runs_out_while_the_server_is_away(server: Start) -> None:
    behind = server()
    app = Stem(behind.url)
    handle = app.enqueue("nobody's", {})

    async def listened(stream: AsyncIterator[AnyEvent]) -> list[AnyEvent]:
        return await asyncio.wait_for(collected(stream), 30)  # it used to be for ever

    async def listen() -> None:
        every = app.aevents(timeout=1.5)
        one = asyncio.ensure_future(listened(handle.aevents(timeout=1.5)))
        feed = app.event_feed._thread.service
        assert feed is not None
        await asyncio.to_thread(eventually, lambda: feed._followers)
        behind.kill()
        with pytest.raises(TimeoutError, match=rf"no event of task {handle.id} in 1.5 s; the broker cannot be reached"):
            await one
        with pytest.raises(TimeoutError, match=r"no event in 1.5 s; the broker cannot be reached"):
            await listened(every)

    asyncio.run(listen())
    app.close()


async def collected(stream: AsyncIterator[AnyEvent]) -> list[AnyEvent]:
    return [event async for event in stream]


def test_who_waits_for_a_result_has_it_over_a_cut(emptied: tuple[Server, Proxy]) -> None:
    behind, proxy = emptied
    waiting, working = through(proxy), open_broker(behind.url)
    working.publish([envelope(id="a")])
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(lambda: insist(lambda: waiting.wait("a", 10)))
        eventually(lambda: behind.do("CLIENT", "LIST") and "blpop" in str(behind.do("CLIENT", "LIST")))
        proxy.cut()
        working.exchange("alpha", [Settlement(take_one(working).receipt, SUCCESS)], [], 0)
        assert answer.result(10).result == SUCCESS.result
    waiting.close()
    working.close()


def test_what_was_promised_is_there_after_a_death(server: Start) -> None:
    durable = server(aof="always")
    broker = open_broker(durable.url)
    broker.publish([envelope(id=id) for id in ("done", "held", "waiting")])
    done, held = take(broker, 2)
    broker.exchange("alpha", [Settlement(done.receipt, SUCCESS)], [], 0)
    durable.kill()
    with pytest.raises(BrokerUnavailable):
        broker.renew([held.receipt])
    durable.start()
    assert broker.renew([held.receipt]) == []
    assert broker.exchange("alpha", [Settlement(held.receipt, Finish(SUCCESS.state))], [], 0).verdicts == [Verdict.DONE]
    assert [one.receipt.id for one in take(broker)] == ["waiting"]
    broker.close()


def test_a_full_server_takes_no_tasks_but_lets_workers_empty_its_queues(server: Start) -> None:
    full = server()
    broker = open_broker(full.url)
    broker.publish([envelope(id=id) for id in ("held", "again", "waiting")])
    held, again = take(broker, 2)
    full.do("CONFIG", "SET", "maxmemory", 1)  # of any version, less than it has
    with pytest.raises(BrokerUnavailable, match="let workers empty the queues"):
        broker.publish([envelope(id="new")])
    assert broker.renew([held.receipt, again.receipt]) == []
    plans = [Settlement(held.receipt, SUCCESS), Settlement(again.receipt, GiveBack(delay=0))]
    answer = broker.exchange("alpha", plans, ["default"], 5)
    assert answer.verdicts == [Verdict.DONE, Verdict.DONE]
    assert {one.receipt.id for one in answer.deliveries} == {"again", "waiting"}
    assert broker.status(["new", "held"])[0] is None
    broker.add_counts([TaskCounts(queue="default", name="a", minute=int(time.time()) // 60, counts={"succeeded": 1})])
    broker.sweep()
    assert broker.queue_states()[0].running == 2 and len(broker.list_tasks(TaskFilter(), 10).tasks) == 3
    assert broker.pause("default") and broker.resume("default")
    broker.exchange("alpha", [Settlement(one.receipt, GiveBack()) for one in answer.deliveries], [], 0)
    broker.forget("again")
    assert broker.purge("default") == 2
    broker.close()


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_batch_that_the_server_took_in_part_is_reported_as_such(server: Start, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if rounds == 2:
        monkeypatch.setattr(publishing_module, "ROUND_TRIP_BYTES", 1)
    behind = server()
    broker = open_broker(behind.url)
    broker.publish([envelope(queue="default"), envelope(queue="other")])
    both = [envelope(id="a", queue="default"), envelope(id="b", queue="other")]
    behind.do("ACL", "SETUSER", "default", "resetkeys", f"~{queue_key('default')}*", f"~{REGISTRY}*")
    with pytest.raises(BrokerUnavailable, match=r"'a', 'b' may be stored, all or some, or not") as caught:
        broker.publish(both)
    assert (caught.value.unsure, caught.value.task_ids) == (True, ("a", "b"))
    with pytest.raises(BrokerUnavailable) as caught:
        broker.publish([envelope(id="c", queue="other")])
    assert not caught.value.unsure
    behind.do("ACL", "SETUSER", "default", "allkeys")
    assert [status is not None for status in broker.status(["a", "b", "c"])] == [True, False, False]
    assert broker.publish(both) == ["a", "b"]
    assert [each.queued for each in broker.queues()] == [2, 2]
    broker.close()
