"""Steps that the rules of canvases need: small trees, and the way of a worker through them."""

from __future__ import annotations

from typing import Any

import msgspec

from stem_iso.brokers.base import Broker, Delivery
from stem_iso.outcome import TaskState
from stem_iso.task.canvas.tree import Canvas, Leaf, Parallel, Series, Tree, lay, leaves
from stem_iso.task.envelope import Envelope, decode
from stem_iso.task.settlement import Finish
from stem_iso.testing.contract.steps import envelope, settle, take, take_one

BOUND = 10.0


def leaf(id: str, *on_error: Leaf) -> Leaf:
    return Leaf(id=id, name=f"task.{id}", queue="default", on_error=on_error)


def chain(*parts: Tree) -> Series:
    return Series(parts=parts)


def group(id: str, *members: Tree, on_error: tuple[Leaf, ...] = ()) -> Parallel:
    return Parallel(id=id, members=members, on_error=on_error)


def compose(broker: Broker, tree: Tree, most: int = 16 << 20, **fields: Any) -> Canvas:
    """`fields`: of the envelope of that name, as a dict."""
    canvas = lay(tree, [envelope(id=each.id, name=each.name, **fields.get(each.id, {})) for each in leaves(tree)], most)
    broker.compose(canvas)
    return canvas


def success(value: object, ttl: float = 86_400.0) -> Finish:
    return Finish(TaskState.SUCCEEDED, result=msgspec.msgpack.encode(value), ttl=ttl)


def run(broker: Broker, id: str, plan: Finish) -> Envelope:
    """The one delivery that there is, which must be `id`, ended so."""
    delivery = take_one(broker)
    assert delivery.receipt.id == id
    settle(broker, delivery, plan)
    return decode(delivery.body)


def ready(broker: Broker) -> dict[str, Delivery]:
    return {delivery.receipt.id: delivery for delivery in take(broker)}


def previous(envelope: Envelope) -> Any:
    return None if envelope.previous is None else msgspec.msgpack.decode(envelope.previous)


def known(broker: Broker, *ids: str) -> list[tuple[TaskState, str | None]]:
    records = [record for record in broker.status(ids) if record is not None]
    assert len(records) == len(ids)
    return [(record.state, record.reason) for record in records]
