"""Builder of canvases: from the parts that were composed to the tree and the envelopes that a broker stores.

Part ── build ──> Tree + an envelope for each call ── lay ──> Canvas ──┬──> context.compose ──> core    inside a task
                                                                       └──> broker.compose              outside of one
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from stem_iso.client import enqueue
from stem_iso.client.canvas import Chain, Group, Part, Signature, signatures
from stem_iso.client.canvas_result import CanvasHandle, composed
from stem_iso.errors import Misfit
from stem_iso.task.canvas.tree import Canvas, Leaf, Parallel, Series, Tree, lay
from stem_iso.task.context import TaskContext
from stem_iso.task.enqueue_options import as_later_step
from stem_iso.task.envelope import Envelope

if TYPE_CHECKING:
    from stem_iso.client.application import Application

Make = Callable[[Signature[Any]], Envelope]

DEEPEST = 100  # parts in parts: whoever walks a tree (encoding, drawing, a broker) does so by recursion, and Python allows 1,000 calls


def send(app: Application, part: Part[Any], context: TaskContext | None) -> CanvasHandle[Any]:
    """Store all of it in one step and begin; after the commit, if one of its calls waits for that.

    Raises Misfit, InvalidOptions, PayloadTooLarge, BrokerUnavailable.
    """
    context = enqueue.speaker(app, context)
    canvas = canvas_of(app, part, context)
    store = partial(enqueue.compose, app, canvas, context)
    waiting = [call for call in signatures(part) if enqueue.waits(app, call.task)]
    if waiting:
        enqueue.after_commit(app, [step.envelope for step in canvas.steps], store)
    else:
        store()
    return composed(app, canvas.tree)


def canvas_of(app: Application, part: Part[Any], context: TaskContext | None = None) -> Canvas:
    """What a broker stores of it, with new ids. Raises Misfit, InvalidOptions."""
    now = app.clock()
    canvas = laid(app, part, lambda signature: enqueue.envelope(signature, context, now), now, enqueue.new_id)
    root = canvas.id if context is None else context.lineage[1]
    steps = [msgspec.structs.replace(step, envelope=msgspec.structs.replace(step.envelope, root_id=root)) for step in canvas.steps]
    return msgspec.structs.replace(canvas, steps=tuple(steps))


def laid(app: Application, part: Part[Any], make: Make, now: float, new_id: Callable[[], str]) -> Canvas:
    """The canvas of these envelopes, whose times count from `now`. Raises Misfit."""
    tree, envelopes = build(part, lambda signature, first: _as_part(make(signature), signature, first, now), new_id)
    canvas = lay(tree, envelopes, app.broker_options.max_result_bytes)
    _refuse_ids(part, canvas.id)
    return canvas


def _refuse_depth(depth: int) -> None:
    if depth > DEEPEST:
        raise Misfit(f"a canvas holds at most {DEEPEST} chains, groups and link_errors in one another; let a task in it enqueue the rest")


def _refuse_ids(part: Part[Any], canvas: str) -> None:
    """An id that a task bears already, or two parts do, would be overwritten, or never be counted. The canvas's own is looked up first."""
    given = [(call.task.name, call.task.options.given["task_id"]) for call in signatures(part) if "task_id" in call.task.options.given]
    for number, (name, id) in enumerate(given):
        if id != canvas or number:
            what = f"{name}: task_id={id!r} cannot be given to a part of a canvas, since a task of that id may exist"
            raise Misfit(f"{what}; leave it out, or give it to the last link alone: it is then the id of the whole canvas")


def _as_part(envelope: Envelope, signature: Signature[Any], first: bool, now: float) -> Envelope:
    if envelope.lock is not None:
        what = f"{envelope.name} is unique, and a step of a canvas cannot be: where one is waiting already, nobody could follow"
        raise Misfit(f"{what}; switch it off for this step: {envelope.name}.using(unique=False)")
    if signature.follows:
        envelope = msgspec.structs.replace(envelope, after=True)
    return envelope if first else as_later_step(envelope, signature.task.options, now)


def build(part: Part[Any], make: Callable[[Signature[Any], bool], Envelope], new_id: Callable[[], str]) -> tuple[Tree, list[Envelope]]:
    """The tree of a part, and an envelope for each call in it; `make` gets whether the call begins with the canvas."""
    envelopes: list[Envelope] = []

    def leaf(signature: Signature[Any], first: bool, depth: int) -> Leaf:
        _refuse_depth(depth)
        envelope = make(signature, first)
        envelopes.append(envelope)
        return Leaf(id=envelope.id, name=envelope.name, queue=envelope.queue, on_error=errors(signature, depth))

    def errors(part: Part[Any], depth: int) -> tuple[Leaf, ...]:
        return tuple(leaf(each, False, depth + 1) for each in part.on_error)

    def tree(part: Part[Any], first: bool, depth: int) -> Tree:
        _refuse_depth(depth)
        if isinstance(part, Signature):
            return leaf(part, first, depth)
        if isinstance(part, Chain):
            parts = tuple(tree(each, first and number == 0, depth + 1) for number, each in enumerate(part.parts))
            return Series(parts=parts, on_error=errors(part, depth))
        assert isinstance(part, Group)
        members = tuple(tree(each, first, depth + 1) for each in part.members)
        return Parallel(id=new_id(), members=members, on_error=errors(part, depth))

    return tree(part, True, 0), envelopes
