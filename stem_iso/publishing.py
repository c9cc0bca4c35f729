"""The last step of every enqueue: through the middleware, between the two publish signals, into the broker.

envelopes ── middleware ── before_task_publish ──┬──> context.publish ──> core    inside a task
                                                 └──> broker.publish              outside of one ──> after_task_publish ──> ids
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from stem_iso.signals import AfterTaskPublishSignal, BeforeTaskPublishSignal
from stem_iso.task.codec import unpack
from stem_iso.task.envelope import Envelope

if TYPE_CHECKING:
    from stem_iso.app import Stem
    from stem_iso.task.context import TaskContext


def publish(app: Stem, envelopes: Sequence[Envelope], context: TaskContext | None) -> list[tuple[str, str]]:
    """Id and queue of each. `context`: of the task that they are published through; None: through the broker."""
    queues = {envelope.id: envelope.queue for envelope in envelopes}
    ids = app.middleware.enqueue(envelopes, partial(_publish, app, context, queues))
    return [(id, queues.get(id, envelope.queue)) for id, envelope in zip(ids, envelopes, strict=True)]


def _publish(app: Stem, context: TaskContext | None, queues: dict[str, str], envelopes: Sequence[Envelope]) -> list[str]:
    """`queues` by id: a middleware may have changed them."""
    before, after = app.signals.before_task_publish, app.signals.after_task_publish
    if before.listeners:
        for envelope in envelopes:
            before.tell(BeforeTaskPublishSignal(task_id=envelope.id, **_fields(envelope)))
    if context is not None:
        ids = context.publish(list(envelopes))
    else:
        with app.lending.lend() as broker:
            ids = broker.publish(envelopes)
    queues.update(zip(ids, (envelope.queue for envelope in envelopes), strict=True))
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
