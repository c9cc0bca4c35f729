"""Handlers: the unit of work, as a class or as a function.

    class Email(TaskHandler[None])          @app.task(...) def make(...)
        name, options, call                      └ FunctionHandler
            └────────────── form: ISOLATED if an entrypoint is declared, else ASYNC or SYNC, by `call`

`isolate_entrypoint` may be given in the options or as an attribute. A function assigned in a class body is `(context, args)`; a method
there is `(self, context, args)`: the number of parameters distinguishes them.

TaskRegistry: the handlers of an application, by name. Nothing that arrives through a broker finds code in any other way.

Entrypoint: what runs for a handler in an attempt, inline or in an isolate; encoded arguments in, encoded result out.

    Job.payload ── decode_call ──> header, args ── Entrypoint.unpack ──> values ── Entrypoint(context, values) ──> value ── pack ──> bytes

A function under `@app.task` gets its parameters, converted; a class handler's `call` and an `isolate_entrypoint` get `(context, args)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import WRAPPER_ASSIGNMENTS, cached_property
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from stem_iso.errors import InvalidOptions, UnknownTask
from stem_iso.task.arguments import Hints, InvalidArguments, Parameters, redacted
from stem_iso.task.codec import unpack
from stem_iso.task.context import Sender, TaskContext
from stem_iso.task.options import Form, TaskOptions, form_conflict
from stem_iso.validation import did_you_mean, text

R = TypeVar("R")
NOTHING = nullcontext()


class TaskHandler(Generic[R]):
    """Subclass it with `name`, `options` and `call`, sync or async; `call` is not used where an `isolate_entrypoint` is declared."""

    name: str = ""
    options: TaskOptions = TaskOptions()
    queues: Sequence[str] = ()  # beside that of the options: those for which it is enqueued too, so that a worker takes from them
    isolate_entrypoint: Callable[..., Any] | None = None

    def call(self, context: TaskContext, args: dict[str, Any]) -> R | Awaitable[R]:
        raise NotImplementedError(f"{type(self).__qualname__} has neither call() nor an isolate_entrypoint")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {form_of(self).value}>"


class Source(NamedTuple):
    """Where a function was declared. `spec` is its module's, which an execution of the module brings anew; None in a notebook."""

    module: str
    qualname: str
    file: str
    line: int
    spec: object

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Source:
        code, known = getattr(function, "__code__", None), getattr(function, "__globals__", {})
        place = str(getattr(function, "__module__", "")), str(getattr(function, "__qualname__", ""))
        return cls(*place, getattr(code, "co_filename", ""), getattr(code, "co_firstlineno", 0), known.get("__spec__"))


class FunctionHandler(TaskHandler[R]):
    """A function as a handler; `isolate` makes the function itself the entrypoint; `hints` as in `Parameters`."""

    def __init__(self, function: Callable[..., Any], name: str, options: TaskOptions, isolate: bool, hints: Hints | None = None) -> None:
        self.function, self.name, self.options, self.isolate = function, name, options, isolate
        self.parameters = Parameters(function, name, hints, options.redact)
        self.source = Source.of(function)

    @cached_property
    def form(self) -> Form:
        if self.isolate or self.options.isolate_entrypoint is not None:
            return Form.ISOLATED
        return Form.ASYNC if inspect.iscoroutinefunction(self.function) else Form.SYNC

    @cached_property
    def looks(self) -> dict[str, Any]:
        """The attributes that `help()` and `inspect` look for on a function."""
        found = {name: getattr(self.function, name) for name in WRAPPER_ASSIGNMENTS if hasattr(self.function, name)}
        return found | {"__wrapped__": self.function, "__signature__": self.parameters.signature}

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
    if isinstance(handler, FunctionHandler):
        handler.parameters.refuse_unknown_redactions()
    conflict = form_conflict(form_of(handler), lambda name: getattr(options, name))
    if conflict:
        raise InvalidOptions(f"{handler.name}: {conflict}")


def redacted_arguments(handler: TaskHandler[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call as people are shown them."""
    if isinstance(handler, FunctionHandler):
        return handler.parameters.redacted(values)
    return redacted(values, handler.options.redact)


# -- registry ----------------------------------------------------------------------------------------------------------------------------


class TaskRegistry:
    """Owned by the application that it was given to; filled where tasks are declared, read everywhere else."""

    def __init__(self) -> None:
        self._handlers: dict[str, TaskHandler[Any]] = {}
        self._stand_ins: set[str] = set()

    def register(self, handler: TaskHandler[Any], override: bool = False) -> TaskRegistry:
        """Returns the registry, so that calls can be chained.

        Raises InvalidOptions for a second handler of the name, unless `override`, or the same function is declared again: its module was
        reloaded, or its cell of a notebook run twice.
        """
        if not isinstance(handler, TaskHandler):
            raise InvalidOptions(f"{handler!r} is no TaskHandler; give an instance, and use @app.task for a function")
        refuse_nonsense(handler)
        present = self._handlers.get(handler.name)
        if present is not None and handler.name not in self._stand_ins and not override and not _declared_again(present, handler):
            raise InvalidOptions(f"a task named {handler.name!r} is registered already; rename it, or replace it with override=True")
        self._handlers[handler.name] = handler
        self._stand_ins.discard(handler.name)
        return self

    def stand_in(self, handler: TaskHandler[Any]) -> None:
        """Register it until a handler of its name comes, which replaces it: a module that is imported later declares the real one."""
        if handler.name not in self._handlers:
            self.register(handler)
            self._stand_ins.add(handler.name)

    def find(self, name: str) -> TaskHandler[Any] | None:
        """None for a name that nothing here has."""
        return self._handlers.get(name)

    def resolve(self, name: str) -> TaskHandler[Any]:
        """Raises UnknownTask."""
        try:
            return self._handlers[name]
        except KeyError:
            raise UnknownTask(f"no task is named {name!r}{did_you_mean(name, self._handlers)}") from None

    def __iter__(self) -> Iterator[TaskHandler[Any]]:
        return iter(list(self._handlers.values()))

    def __contains__(self, name: object) -> bool:
        return name in self._handlers

    def __len__(self) -> int:
        return len(self._handlers)

    def __repr__(self) -> str:
        return f"<TaskRegistry {', '.join(sorted(self._handlers)) or 'empty'}>"


def _declared_again(present: TaskHandler[Any], handler: TaskHandler[Any]) -> bool:
    """Whether both are declarations of one function: its module was reloaded, its cell of a notebook was changed, or run twice.

    Two functions of one name in a module that was executed once are two, and so are two that a factory made.
    """
    if not isinstance(present, FunctionHandler) or not isinstance(handler, FunctionHandler):
        return False
    old, new = present.source, handler.source
    if (old.module, old.qualname) != (new.module, new.qualname):
        return False
    same_line = (old.file, old.line) == (new.file, new.line) and "<locals>" not in new.qualname
    return old.spec is not new.spec or old.file != new.file or same_line


# -- entrypoint --------------------------------------------------------------------------------------------------------------------------


class Entrypoint:
    """`target(context, values)` is the user's code; `function` the handler whose parameters the values are, None where they go in as one
    dict; `sender` the application that the context enqueues through.
    """

    def __init__(
        self, name: str, target: Callable[..., Any], function: FunctionHandler[Any] | None = None, sender: Sender | None = None
    ) -> None:
        self.name, self._target, self._function, self.sender = name, target, function, sender

    def unpack(self, data: bytes, before: bytes | None = None) -> dict[str, Any]:
        """`before`: the first argument, encoded, where it is not among the others. Raises InvalidArguments.

        A class handler has no first argument: it finds the result before it in `context.previous`.
        """
        if self._function is not None:
            return self._function.parameters.unpack(data, before)
        try:
            values = unpack(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidArguments(f"{self.name}: the arguments are no data ({error})") from None
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            raise InvalidArguments(f"{self.name}: the arguments are no map of names, but {type(values).__name__}")
        return values

    def around(self, context: TaskContext) -> AbstractContextManager[object]:
        """The middleware of its application."""
        return NOTHING if self.sender is None else self.sender.middleware.around(context)

    def __call__(self, context: Any, values: dict[str, Any]) -> Any:
        return self._target(context, values)

    def __repr__(self) -> str:
        return f"<Entrypoint {self.name!r}>"


def entrypoint_of(handler: TaskHandler[Any], sender: Sender | None = None) -> Entrypoint:
    """What runs for this handler: its isolate entrypoint where it declares one, else its call."""
    declared = declared_entrypoint(handler)
    if declared is not None:
        return Entrypoint(handler.name, declared, sender=sender)
    return Entrypoint(handler.name, handler.call, handler if isinstance(handler, FunctionHandler) else None, sender)
