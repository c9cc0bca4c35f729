"""Handlers: the unit of work, as a class or as a function.

    class Email(TaskHandler[None])          @app.task(...) def make(...)
        name, options, call                      └ FunctionHandler
            └────────────── form: ISOLATED if an entrypoint is declared, else ASYNC or SYNC, by `call`

`isolate_entrypoint` may be given in the options or as an attribute. A function assigned in a class body is `(context, args)`; a method
there is `(self, context, args)`: they are told apart by the number of parameters.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any, Generic, TypeVar

from stem_iso.errors import InvalidOptions
from stem_iso.task.arguments import Hints, Parameters
from stem_iso.task.context import TaskContext
from stem_iso.task.options import Form, TaskOptions, form_conflict
from stem_iso.validation import text

R = TypeVar("R")


class TaskHandler(Generic[R]):
    """Subclass it with `name`, `options` and `call`, sync or async; `call` is not used where an `isolate_entrypoint` is declared."""

    name: str = ""
    options: TaskOptions = TaskOptions()
    isolate_entrypoint: Callable[..., Any] | None = None

    def call(self, context: TaskContext, args: dict[str, Any]) -> R | Awaitable[R]:
        raise NotImplementedError(f"{type(self).__qualname__} has neither call() nor an isolate_entrypoint")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {form_of(self).value}>"


class FunctionHandler(TaskHandler[R]):
    """A function as a handler; `isolate` makes the function itself the entrypoint; `hints` as in `Parameters`."""

    def __init__(self, function: Callable[..., Any], name: str, options: TaskOptions, isolate: bool, hints: Hints | None = None) -> None:
        self.function, self.name, self.options, self.isolate = function, name, options, isolate
        self.parameters = Parameters(function, name, hints)

    @cached_property
    def form(self) -> Form:
        if self.isolate or self.options.isolate_entrypoint is not None:
            return Form.ISOLATED
        return Form.ASYNC if inspect.iscoroutinefunction(self.function) else Form.SYNC

    def call(self, context: TaskContext, args: dict[str, Any]) -> Any:
        positional, keywords = self.parameters.spread(args)
        if self.parameters.takes_context:
            return self.function(context, *positional, **keywords)
        return self.function(*positional, **keywords)


def declared_entrypoint(handler: TaskHandler[Any]) -> Callable[..., Any] | None:
    """The `isolate_entrypoint` of this handler, ready to be called with (context, args)."""
    if handler.options.isolate_entrypoint is not None:
        return handler.options.isolate_entrypoint
    declared = inspect.getattr_static(handler, "isolate_entrypoint", None)
    if inspect.isfunction(declared) and len(inspect.signature(declared).parameters) == 2:
        return declared
    return handler.isolate_entrypoint


def form_of(handler: TaskHandler[Any]) -> Form:
    if isinstance(handler, FunctionHandler):
        return handler.form
    if declared_entrypoint(handler) is not None:
        return Form.ISOLATED
    return Form.ASYNC if inspect.iscoroutinefunction(handler.call) else Form.SYNC


def refuse_nonsense(handler: TaskHandler[Any]) -> None:
    """Raises InvalidOptions for a handler that cannot be meant."""
    text("name", handler.name)
    if not isinstance(handler, FunctionHandler) and type(handler).call is TaskHandler.call and declared_entrypoint(handler) is None:
        raise InvalidOptions(f"{handler.name}: {type(handler).__qualname__} needs call(context, args), or an isolate_entrypoint")
    options: Any = handler.options
    if not isinstance(options, TaskOptions):
        raise InvalidOptions(f"{handler.name}: options must be TaskOptions(...), not {options!r}")
    conflict = form_conflict(form_of(handler), lambda name: getattr(options, name))
    if conflict:
        raise InvalidOptions(f"{handler.name}: {conflict}")
