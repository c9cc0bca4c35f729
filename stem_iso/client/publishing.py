"""The last step of every enqueue: through the middleware, between the two publish signals, into the broker.

envelopes ── middleware ── before_task_publish ──┬──> context ──> core    inside a task
                                                 └──> broker              outside of one ──> after_task_publish ──> ids
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from stem_iso.errors import InvalidOptions
from stem_iso.signals import AfterTaskPublishSignal, BeforeTaskPublishSignal, Signals
from stem_iso.task.codec import unpack
from stem_iso.task.envelope import Envelope

if TYPE_CHECKING:
    from stem_iso.app import Stem
    from stem_iso.task.canvas.tree import Canvas
    from stem_iso.task.context import TaskContext


def publish(app: Stem, envelopes: Sequence[Envelope], context: TaskContext | None) -> list[tuple[str, str]]:
    """Id and queue of each. `context`: of the task that they are published through; None: through the broker."""
    queues = {envelope.id: envelope.queue for envelope in envelopes}  # by the id that counts; a middleware may change them

    def last(envelopes: Sequence[Envelope]) -> list[str]:
        ids = _told(app.signals, envelopes, lambda: _publish(app, envelopes, context))
        queues.update(zip(ids, (envelope.queue for envelope in envelopes), strict=True))
        return ids

    ids = app.middleware.enqueue(envelopes, last)
    return [(id, queues.get(id, envelope.queue)) for id, envelope in zip(ids, envelopes, strict=True)]


def compose(app: Stem, canvas: Canvas, context: TaskContext | None) -> None:
    """Store it and begin. Raises InvalidOptions for a middleware that splits it, or gives one of its parts another id or queue."""
    app.middleware.enqueue([step.envelope for step in canvas.steps], partial(_compose, app, canvas, context))


def _publish(app: Stem, envelopes: Sequence[Envelope], context: TaskContext | None) -> list[str]:
    if context is not None:
        return context.publish(list(envelopes))
    with app.broker_pool.borrow() as broker:
        return broker.publish(envelopes)


def _compose(app: Stem, canvas: Canvas, context: TaskContext | None, envelopes: Sequence[Envelope]) -> list[str]:
    ids = [envelope.id for envelope in envelopes]
    if [(each.id, each.queue) for each in envelopes] != [(step.envelope.id, step.envelope.queue) for step in canvas.steps]:
        raise InvalidOptions("a middleware must send all parts of a canvas at once, with their ids and queues: they name each other")
    steps = zip(canvas.steps, envelopes, strict=True)
    canvas = msgspec.structs.replace(canvas, steps=tuple(msgspec.structs.replace(step, envelope=each) for step, each in steps))

    def store() -> list[str]:
        if context is not None:
            context.compose(canvas)
        else:
            with app.broker_pool.borrow() as broker:
                broker.compose(canvas)
        return ids

    return _told(app.signals, envelopes, store)


def _told(signals: Signals, envelopes: Sequence[Envelope], store: Callable[[], list[str]]) -> list[str]:
    """`store` answers the ids that count."""
    before, after = signals.before_task_publish, signals.after_task_publish
    if before.listeners:
        for envelope in envelopes:
            before.tell(BeforeTaskPublishSignal(task_id=envelope.id, **_fields(envelope)))
    ids = store()
    if after.listeners:
        for id, envelope in zip(ids, envelopes, strict=True):
            after.tell(AfterTaskPublishSignal(task_id=id, sent_id=envelope.id, duplicate=id != envelope.id, **_fields(envelope)))
    return ids


def _fields(envelope: Envelope) -> dict[str, Any]:
    return {
        "at": time.time(),
        "name": envelope.name,
        "queue": envelope.queue,
        "run": envelope.run,
        "attempt": envelope.attempt,
        "args": unpack(envelope.args),
        "headers": dict(envelope.headers),
        "meta": dict(envelope.meta),
        "priority": envelope.priority,
        "not_before": envelope.not_before,
        "expires": envelope.expires,
        "parent_id": envelope.parent_id,
        "root_id": envelope.root_id,
    }
