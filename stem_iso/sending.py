"""From a call to its envelope, and out: the clock and the ids of `task.request` are thrown here.

task + args + options ── signature ──> Signature ── envelope_of ──> Envelope ──┬──> context.publish ──> core    inside a task
                                                                               └──> broker.publish              outside of one
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stem_iso.handle import TaskHandle
from stem_iso.ids import new_id
from stem_iso.locate import refuse_while_importing
from stem_iso.task.checks import text
from stem_iso.task.context import TaskContext
from stem_iso.task.envelope import Envelope
from stem_iso.task.handler import FunctionHandler, form_of
from stem_iso.task.request import Declared, envelope_of

if TYPE_CHECKING:
    from stem_iso.app import Stem
    from stem_iso.tasks import Signature, TaskBase


def send(app: Stem, signatures: Sequence[Signature[Any]], context: TaskContext | None) -> list[TaskHandle[Any]]:
    """Publish these calls in one step: all of them are checked before any is sent."""
    refuse_while_importing("enqueueing")
    if context is not None and not context.speaks_for(app):
        context = None
    envelopes = [_envelope(signature, context) for signature in signatures]
    if not envelopes:
        return []
    if context is not None:
        ids = context.publish(envelopes)
    else:
        with app.lending.lend() as broker:
            ids = broker.publish(envelopes)
    return [TaskHandle(app, id, envelope.queue) for id, envelope in zip(ids, envelopes, strict=True)]


def signature(app: Stem, task: str | TaskBase[..., Any], args: Mapping[str, Any], options: Mapping[str, Any]) -> Signature[Any]:
    """A call with its arguments by parameter name. Raises TypeError where they do not fit, InvalidOptions."""
    from stem_iso.tasks import Signature, TaskBase

    if not isinstance(args, Mapping) or not all(isinstance(key, str) for key in args):
        raise TypeError(f"args: {args!r} must be a mapping from parameter names")
    base = task if isinstance(task, TaskBase) else app.task_named(text("name", task))
    handler = _function(base.app, base.name)
    if handler is not None:
        handler.parameters.fit(args)
    return Signature(base.using(**options), dict(args))


def bound(app: Stem, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by parameter name. Raises TypeError."""
    handler = _function(app, name)
    if handler is not None:
        return handler.parameters.bind(args, kwargs)
    if args:
        raise TypeError(f"{name}: its arguments are named; give them by keyword")
    return dict(kwargs)


def _function(app: Stem, name: str) -> FunctionHandler[Any] | None:
    handler = app.registry.resolve(name) if name in app.registry else None
    return handler if isinstance(handler, FunctionHandler) else None


def _envelope(signature: Signature[Any], context: TaskContext | None) -> Envelope:
    task = signature.task
    return envelope_of(
        _declared(task.app, task.name),
        signature.args,
        task.said,
        id=task.said.given.get("task_id") or new_id(),
        now=time.time(),
        lineage=None if context is None else context.lineage,
    )


def template(signature: Signature[Any]) -> Envelope:
    """A call for later, many times: without an id, and its times count from 0."""
    task = signature.task
    return envelope_of(_declared(task.app, task.name), signature.args, task.said, id="", now=0.0)


def _declared(app: Stem, name: str) -> Declared:
    """What is known here of a task. Raises InvalidOptions for an annotation that cannot be converted."""
    if name not in app.registry:
        return Declared(name)
    handler = app.registry.resolve(name)
    if isinstance(handler, FunctionHandler):
        handler.parameters.check()
    return Declared(name, handler.options, form_of(handler))
