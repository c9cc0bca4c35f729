"""Relays that die between any two hops: whoever comes next ends what they began, and it comes to what the oracle says."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from stem_iso.brokers.base import Settlement
from stem_iso.brokers.redis import outbox
from stem_iso.brokers.redis.broker import RedisBroker
from stem_iso.brokers.redis.driver.client import Request, ScriptCall
from stem_iso.brokers.url import open_broker
from stem_iso.errors import BrokerUnavailable
from stem_iso.outcome import TaskState
from stem_iso.task.canvas.tree import Tree, leaves, parts_of
from stem_iso.task.settlement import Finish
from stem_iso.testing.contract.canvas_steps import chain, compose, group, leaf, ready
from stem_iso.testing.contract.steps import FAILURE, settle
from tests.servers.cluster import Cluster
from tests.task.canvases import grown, judge, laid, named_by

QUEUES = ("a", "b")
HOPS = frozenset(("claim_entry", "store_tree", "place_steps", "mark_placed", "begin", "skip", "drop", "group", "ack_entry"))


class Dying:
    """Breaks the broker's client at a hop of its relay: those before it in a round trip are done, the others are not."""

    def __init__(self, broker: RedisBroker, hops: int) -> None:
        self._run, self._hops = broker._client.run, hops
        broker._client.run = self.run  # type: ignore[method-assign]

    def run(self, calls: Sequence[Request], seconds: float | None = None) -> list[Any]:
        if not any(isinstance(call, ScriptCall) and call.script in HOPS for call in calls):
            return self._run(calls, seconds)
        if self._hops < len(calls):
            self._run(calls[: self._hops], seconds)
            self._hops = 0
            raise BrokerUnavailable("the relay died here")
        self._hops -= len(calls)
        return self._run(calls, seconds)


def seen_through(broker: RedisBroker, queues: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By another one, that looks until nothing is left."""
    monkeypatch.setattr(outbox, "AGE", 0.0)
    for _ in range(50):
        broker._relay.pending(queues)
        left = [broker._client.command(f"si:{{{queue}}}", "HLEN", f"si:{{{queue}}}:out") for queue in queues]
        if not any(left):
            return
    raise AssertionError("the outboxes never got empty")


def run_through(url: str, tree: Tree, dice: random.Random, monkeypatch: pytest.MonkeyPatch) -> dict[str, TaskState]:
    """Each step by a broker whose relay may die under it."""
    fates: dict[str, TaskState] = {}
    healthy = open_broker(url)
    dying = open_broker(url)
    assert isinstance(healthy, RedisBroker) and isinstance(dying, RedisBroker)
    Dying(dying, dice.randrange(12))
    dying.compose(laid(tree))
    seen_through(healthy, (*QUEUES, "default"), monkeypatch)
    dying.close()
    while found := healthy.exchange("boot", [], QUEUES, 1).deliveries:
        (delivery,) = found
        id = delivery.receipt.id
        assert id not in fates, f"{id} ran twice"
        dying = open_broker(url)
        assert isinstance(dying, RedisBroker)
        Dying(dying, dice.randrange(6))
        fails = dice.random() < 0.25
        fates[id] = TaskState.FAILED if fails else TaskState.SUCCEEDED
        settle(dying, delivery, FAILURE if fails else Finish(TaskState.SUCCEEDED, result=msgspec.msgpack.encode(id)))
        dying.close()
        seen_through(healthy, (*QUEUES, "default"), monkeypatch)
    healthy.close()
    return fates


@pytest.mark.parametrize("seed", range(25))
def test_a_relay_that_dies_between_two_hops_is_taken_over(redis_url: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(seed)
    tree = grown(dice.randrange, QUEUES)
    fates = run_through(redis_url, tree, dice, monkeypatch)
    broker = open_broker(redis_url)
    ids = [ref.id for ref in parts_of(tree)]
    records = dict(zip(ids, broker.status(ids), strict=True))
    named = {id: name for id, record in records.items() if (name := named_by(record)) is not None}
    for id, expected in judge(tree, fates, named).items():
        record = records[id]
        assert (None if record is None else record.state) == expected.state, id
    broker.close()


@pytest.mark.parametrize("hops", range(9))
def test_a_producer_that_dies_while_it_composes_has_composed_all_or_nothing(
    redis_url: str, hops: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying, healthy = open_broker(redis_url), open_broker(redis_url)
    assert isinstance(dying, RedisBroker) and isinstance(healthy, RedisBroker)
    Dying(dying, hops)
    whole = compose(dying, chain(group("g", leaf("a"), leaf("b")), leaf("c")))
    seen_through(healthy, ("default",), monkeypatch)
    healthy.compose(whole)
    assert set(ready(healthy)) == {"a", "b"}
    assert healthy.tree("c") == whole.tree
    for broker in (dying, healthy):
        broker.close()


@pytest.mark.parametrize("hops", range(4))
def test_a_revoke_whose_author_dies_still_reaches_the_group_around_it(redis_url: str, hops: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dying, healthy = open_broker(redis_url), open_broker(redis_url)
    assert isinstance(dying, RedisBroker) and isinstance(healthy, RedisBroker)
    compose(healthy, chain(group("outer", group("inner", leaf("a")), leaf("b")), leaf("c")))
    Dying(dying, 2 + hops)
    with suppress(BrokerUnavailable):
        dying.revoke("inner")
    seen_through(healthy, ("default",), monkeypatch)
    states = [record.state for record in healthy.status(["inner", "outer", "c"]) if record is not None]
    assert states in ([TaskState.CANCELLED, TaskState.FAILED, TaskState.FAILED], [TaskState.QUEUED] * 3)
    for broker in (dying, healthy):
        broker.close()


@pytest.mark.slow
def test_a_group_of_ten_thousand_over_a_cluster(cluster: Cluster) -> None:
    broker = open_broker(cluster.url)
    tree = chain(group("g", *(leaf(f"m{n}") for n in range(10_000))), leaf("c"))
    began = time.monotonic()
    compose(broker, tree)
    while found := broker.exchange("boot", [], ["default"], 1000).deliveries:
        if found[0].receipt.id == "c":
            break
        plans = [Settlement(each.receipt, Finish(TaskState.SUCCEEDED, result=b"\x01")) for each in found]
        broker.exchange("boot", plans, [], 0)
    assert found and len(msgspec.msgpack.decode(msgspec.msgpack.decode(found[0].body)["previous"])) == 10_000
    assert len(list(leaves(tree))) == 10_001
    assert time.monotonic() - began < 30
    broker.close()
