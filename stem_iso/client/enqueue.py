"""Enqueue: from a call to its envelope, through middleware and publish signals, into the broker.

    task + args + options ── signature ──> Signature ── EnvelopeTemplate, one for each task and its options ──> Envelope
    envelopes ── middleware ── before_task_publish ──┬──> context ──> core    inside a task
                                                     └──> broker              outside of one ──> after_task_publish ──> ids ──> handles

The clock and the ids of `task/enqueue_options.py` come from here. Ids are UUIDv7, so that they sort by age.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from stem_iso.brokers.rules import encoded
from stem_iso.client.app_location import refuse_while_importing
from stem_iso.client.canvas import Signature
from stem_iso.client.result import TaskHandle
from stem_iso.client.task_ref import KnownTemplate, TaskRef, function_of
from stem_iso.errors import InvalidOptions, Misfit
from stem_iso.signals import AfterTaskPublishSignal, BeforeTaskPublishSignal, Signals
from stem_iso.task.codec import unpack
from stem_iso.task.context import TaskContext
from stem_iso.task.enqueue_options import Declared, EnvelopeTemplate
from stem_iso.task.envelope import Envelope
from stem_iso.task.handler import FunctionHandler, form_of
from stem_iso.validation import text

if TYPE_CHECKING:
    from stem_iso.client.application import Application
    from stem_iso.task.canvas.tree import Canvas

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid_utils import reseed_rng, uuid7

    # Its dice live in this process's memory: a forked child would throw the same numbers as its parent. Newer releases do it themselves.
    if hasattr(os, "register_at_fork"):  # Windows has no forks
        os.register_at_fork(after_in_child=reseed_rng)


def new_id() -> str:
    return str(uuid7())


def send(app: Application, signatures: Sequence[Signature[Any]], context: TaskContext | None) -> list[TaskHandle[Any]]:
    """Publish these calls in one step: all of them are checked before any is sent. Those that wait for a commit go in another, after it."""
    context = speaker(app, context)
    now, lineage = app.clock(), None if context is None else context.lineage
    envelopes = [_envelope(signature, now, lineage) for signature in signatures]
    waiting = [number for number, signature in enumerate(signatures) if waits(app, signature.task)]
    if not waiting:
        return [TaskHandle(app, id, queue) for id, queue in publish(app, envelopes, context)]
    handles: list[TaskHandle[Any]] = [TaskHandle(app, each.id, each.queue) for each in envelopes]

    def store(numbers: Sequence[int]) -> None:
        stored = publish(app, [envelopes[number] for number in numbers], context)
        for number, (id, queue) in zip(numbers, stored, strict=True):
            handles[number].id, handles[number].queue = id, queue

    if at_once := [number for number in range(len(envelopes)) if number not in set(waiting)]:
        store(at_once)
    after_commit(app, [envelopes[number] for number in waiting], partial(store, waiting))
    return handles


def batch(app: Application, given: Iterable[Signature[Any]]) -> list[Signature[Any]]:
    """Raises Misfit for what is no single call of `app`: what follows one, or its failure, is a canvas, and is stored as one."""
    found = list(given)
    for each in found:
        if not isinstance(each, Signature) or each.follows or each.on_error:
            raise Misfit(f"enqueue_many: {each!r} is no single call; give task.s(...), and enqueue a canvas by its own enqueue()")
        if each.task.app is not app:
            raise Misfit(f"enqueue_many: {each.task!r} belongs to {each.task.app!r}, not to {app!r}; enqueue it there")
    return found


def speaker(app: Application, context: TaskContext | None) -> TaskContext | None:
    """The running task that what `app` sends goes through; None: straight to the broker. Raises StemError while an isolate imports it."""
    refuse_while_importing("enqueueing")
    return context if context is not None and context.speaks_for(app) else None


def signature(app: Application, task: str | TaskRef[Any], args: Mapping[str, Any], options: Mapping[str, Any]) -> Signature[Any]:
    """A call with its arguments by parameter name. Raises TypeError where they do not fit, InvalidOptions."""
    if not isinstance(args, Mapping) or not all(isinstance(key, str) for key in args):
        # Never the values: some may be redacted.
        given = f" with the keys {', '.join(map(repr, args))}" if isinstance(args, Mapping) else ""
        raise TypeError(f"args: must be a mapping from parameter names, not a {type(args).__name__}{given}")
    base = task if isinstance(task, TaskRef) else TaskRef[Any](app, text("name", task))
    handler = function_of(base.app, base.name)
    if handler is not None:
        handler.parameters.fit(args)
        handler.parameters.check_values(args)
    return Signature(base.using(**options) if options else base, dict(args))


def envelope(signature: Signature[Any], context: TaskContext | None, now: float) -> Envelope:
    """Raises InvalidOptions, and TypeError for arguments that cannot be sent."""
    return _envelope(signature, now, None if context is None else context.lineage)


def _envelope(signature: Signature[Any], now: float, lineage: tuple[str, str] | None) -> Envelope:
    task = signature.task
    id = task.options.given.get("task_id") or new_id()
    return _template_of(task).fill(signature.args, id=id, now=now, lineage=lineage)


def template(signature: Signature[Any]) -> Envelope:
    """A call for later, many times: without an id, and its times count from 0."""
    return _template_of(signature.task).fill(signature.args, id="", now=0.0)


def _template_of(task: TaskRef[Any]) -> EnvelopeTemplate:
    """Made at the first enqueue, and anew where the name has another handler, or the application other defaults. Raises InvalidOptions."""
    app = task.app
    handler, defaults = app.registry.find(task.name), app.defaults
    known = task.template
    if known is None or known.handler is not handler or known.defaults is not defaults:
        known = task.template = KnownTemplate(handler, defaults, EnvelopeTemplate(_declared(app, task.name), task.options))
    return known.template


def _declared(app: Application, name: str) -> Declared:
    """What is known here of a task. Raises InvalidOptions for an annotation that cannot be converted."""
    handler = app.registry.find(name)
    if handler is None:
        return Declared(name)
    if isinstance(handler, FunctionHandler):
        handler.parameters.check()
    return Declared(name, app.options_of(name), form_of(handler))


# -- transactions: see `client/transactions.py` -------------------------------------------------------------------------------------------


def waits(app: Application, task: TaskRef[Any]) -> bool:
    """Whether what is enqueued of this task here and now waits for a commit. Raises InvalidOptions."""
    asked = task.options.given.get("on_commit")
    if app.transactions is None:
        if asked:
            way_out = "leave it out, or use the application of an integration that knows of transactions, as stem_iso.integrations.django"
            raise InvalidOptions(f"{task.name}: on_commit (True) means nothing here; {way_out}")
        return False
    if asked is None:
        asked = (app.options_of(task.name) if task.name in app.registry else app.defaults).on_commit
    return bool(asked) and app.transactions.open


def after_commit(app: Application, envelopes: Sequence[Envelope], call: Callable[[], object]) -> None:
    """Make the call, which publishes these envelopes, after the commit. Raises PayloadTooLarge now."""
    assert app.transactions is not None  # `waits` has said so
    encoded(envelopes, app.broker_options.max_payload_bytes)
    app.transactions.after_commit(call)


# -- publish -------------------------------------------------------------------------------------------------------------------------------


def publish(app: Application, envelopes: Sequence[Envelope], context: TaskContext | None) -> list[tuple[str, str]]:
    """Id and queue of each. `context`: of the task that they are published through; None: through the broker."""
    changed: dict[str, str] = {}  # queues by the id that counts, of what a middleware made of these envelopes

    def last(sent: Sequence[Envelope]) -> list[str]:
        ids = _with_signals(app.signals, sent, lambda: _publish(app, sent, context))
        if sent is not envelopes:
            changed.update(zip(ids, (envelope.queue for envelope in sent), strict=True))
        return ids

    ids = app.middleware.enqueue(envelopes, last)
    return [(id, changed.get(id, envelope.queue)) for id, envelope in zip(ids, envelopes, strict=True)]


def compose(app: Application, canvas: Canvas, context: TaskContext | None) -> None:
    """Store it and begin. Raises InvalidOptions for a middleware that splits it, or gives one of its parts another id or queue."""
    app.middleware.enqueue([step.envelope for step in canvas.steps], partial(_compose, app, canvas, context))


def _publish(app: Application, envelopes: Sequence[Envelope], context: TaskContext | None) -> list[str]:
    if context is not None:
        return context.publish(list(envelopes))
    with app.broker_pool.borrow() as broker:
        return broker.publish(envelopes)


def _compose(app: Application, canvas: Canvas, context: TaskContext | None, envelopes: Sequence[Envelope]) -> list[str]:
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

    return _with_signals(app.signals, envelopes, store)


def _with_signals(signals: Signals, envelopes: Sequence[Envelope], store: Callable[[], list[str]]) -> list[str]:
    """`store` answers the ids that count."""
    before, after = signals.before_task_publish, signals.after_task_publish
    if before.listeners:
        for envelope in envelopes:
            before.emit(BeforeTaskPublishSignal(task_id=envelope.id, **_fields(envelope)))
    ids = store()
    if after.listeners:
        for id, envelope in zip(ids, envelopes, strict=True):
            after.emit(AfterTaskPublishSignal(task_id=id, sent_id=envelope.id, duplicate=id != envelope.id, **_fields(envelope)))
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
