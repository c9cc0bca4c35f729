"""Enqueue: from a call to its envelope, and out. The clock and the ids of `task/enqueue_options.py` come from here.

task + args + options ── signature ──> Signature ── envelope_of ──> Envelope ── publish ──> ids ──> handles
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stem_iso.client.app_location import refuse_while_importing
from stem_iso.client.ids import new_id
from stem_iso.client.publishing import publish
from stem_iso.client.result import TaskHandle
from stem_iso.errors import Misfit
from stem_iso.task.context import TaskContext
from stem_iso.task.enqueue_options import Declared, envelope_of
from stem_iso.task.envelope import Envelope
from stem_iso.task.handler import FunctionHandler, form_of
from stem_iso.validation import text

if TYPE_CHECKING:
    from stem_iso.app import Stem
    from stem_iso.client.task import Signature, TaskBase


def send(app: Stem, signatures: Sequence[Signature[Any]], context: TaskContext | None) -> list[TaskHandle[Any]]:
    """Publish these calls in one step: all of them are checked before any is sent."""
    context = speaker(app, context)
    now = time.time()
    envelopes = [envelope(signature, context, now) for signature in signatures]
    if not envelopes:
        return []
    return [TaskHandle(app, id, queue) for id, queue in publish(app, envelopes, context)]


def batch(app: Stem, given: Iterable[Signature[Any]]) -> list[Signature[Any]]:
    """Raises Misfit for what is no single call of `app`: what follows one, or its failure, is a canvas, and is stored as one."""
    from stem_iso.client.task import Signature

    found = list(given)
    for each in found:
        if not isinstance(each, Signature) or each.follows or each.on_error:
            raise Misfit(f"enqueue_many: {each!r} is no single call; give task.s(...), and enqueue a canvas by its own enqueue()")
        if each.task.app is not app:
            raise Misfit(f"enqueue_many: {each.task!r} belongs to {each.task.app!r}, not to {app!r}; enqueue it there")
    return found


def speaker(app: Stem, context: TaskContext | None) -> TaskContext | None:
    """The running task that what `app` sends goes through; None: straight to the broker. Raises StemError while an isolate imports it."""
    refuse_while_importing("enqueueing")
    return context if context is not None and context.speaks_for(app) else None


def signature(app: Stem, task: str | TaskBase[..., Any], args: Mapping[str, Any], options: Mapping[str, Any]) -> Signature[Any]:
    """A call with its arguments by parameter name. Raises TypeError where they do not fit, InvalidOptions."""
    from stem_iso.client.task import Signature, TaskBase

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


def after(app: Stem, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """As `bound`, without the first one, which is the result before this call. Raises TypeError."""
    handler = _function(app, name)
    if handler is None:
        return bound(app, name, args, kwargs)
    try:
        return handler.parameters.bind_after(args, kwargs)
    except TypeError as error:
        raise Misfit(str(error)) from None


def annotations_of(app: Stem, name: str) -> tuple[Any, Any]:
    """Of a task's first argument, and of its result; Any where nothing is known here."""
    handler = _function(app, name)
    if handler is None:
        return Any, Any
    hints, shape = handler.parameters.hints, handler.parameters.shape
    return hints.get(shape[0].name, Any) if shape else Any, hints.get("return", Any)


def envelope(signature: Signature[Any], context: TaskContext | None, now: float) -> Envelope:
    task = signature.task
    return envelope_of(
        _declared(task.app, task.name),
        signature.args,
        task.said,
        id=task.said.given.get("task_id") or new_id(),
        now=now,
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
