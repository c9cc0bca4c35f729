"""Reference to a task: the application, the name, and the options of what is enqueued by it. The code behind the name may be elsewhere.

TaskRef ──> TaskBase (task.py)       adds what makes a call of it: s, after, enqueue
   ^─────── Signature (canvas.py)    one call; what composes calls need not know how a task makes them
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, Self, TypeVar, Unpack

from stem_iso.client.application import Application
from stem_iso.errors import Misfit
from stem_iso.task.enqueue_options import NO_OPTIONS, EnqueueOptions, EnvelopeTemplate
from stem_iso.task.handler import FunctionHandler, TaskHandler, redacted_arguments
from stem_iso.task.options import EnqueueFields, TaskOptions

R_co = TypeVar("R_co", covariant=True)


class KnownTemplate(NamedTuple):
    """A template, and of what it was made."""

    handler: TaskHandler[Any] | None
    defaults: TaskOptions
    template: EnvelopeTemplate


class TaskRef(Generic[R_co]):
    """Two of the same name, application and options are equal."""

    template: KnownTemplate | None = None  # set and looked at by `enqueue`, in any thread: each finds one that is right, or makes it

    def __init__(self, app: Application, name: str, options: EnqueueOptions = NO_OPTIONS) -> None:
        self.app, self.name, self.options = app, name, options

    def using(self, **options: Unpack[EnqueueFields]) -> Self:
        """The same task with options for what is enqueued through it. Raises InvalidOptions."""
        return type(self)(self.app, self.name, self.options.merge(options))

    @property
    def first_annotation(self) -> Any:
        """Of the first argument, Any where nothing is known of it here."""
        handler = function_of(self.app, self.name)
        if handler is None or not handler.parameters.shape:
            return Any
        return handler.parameters.hints.get(handler.parameters.shape[0].name, Any)

    @property
    def result_annotation(self) -> Any:
        """Any where nothing is known of it here."""
        handler = function_of(self.app, self.name)
        return Any if handler is None else handler.parameters.hints.get("return", Any)

    def redacted(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as people are shown them; as they are where the task's code is not here."""
        known = self.name in self.app.registry
        return redacted_arguments(self.app.registry.resolve(self.name), args) if known else dict(args)

    def bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by parameter name. Raises TypeError."""
        handler = function_of(self.app, self.name)
        if handler is not None:
            bound = handler.parameters.bind(args, kwargs)
            handler.parameters.check_values(bound)
            return bound
        if args:
            raise TypeError(f"{self.name}: its arguments are named; give them by keyword")
        return dict(kwargs)

    def bound_after(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """As `bound`, without the first one, which is the result before this call. Raises Misfit, a TypeError."""
        handler = function_of(self.app, self.name)
        if handler is None:
            return self.bound(args, kwargs)
        try:
            bound = handler.parameters.bind_after(args, kwargs)
            handler.parameters.check_values(bound)
        except TypeError as error:
            raise Misfit(str(error)) from None
        return bound

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskRef) and (other.app, other.name, other.options) == (self.app, self.name, self.options)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


def function_of(app: Application, name: str) -> FunctionHandler[Any] | None:
    """The function behind this task, None where its code is not here, or is a class."""
    handler = app.registry.find(name)
    return handler if isinstance(handler, FunctionHandler) else None
