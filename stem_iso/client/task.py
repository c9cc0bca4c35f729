"""Task: a function under `@app.task`, to be called here or enqueued for a worker.

    make("cat.png")             runs here and now, with a local context
    make.enqueue("cat.png")     runs in a worker; TaskHandle[R]
    make.using(delay=30)        the same task with options of this enqueue
    make.s("cat.png")           the call as a value, to compose (`client/canvas.py`), or for `enqueue_many`
    make.after(width=64)        the same, but for the first argument: the result of what stands before it

A task is a name and an application. It gets its handler from the application, so it can be pickled as a name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from stem_iso.client.canvas import Link
from stem_iso.client.canvas import Signature as Signature
from stem_iso.client.enqueue import new_id
from stem_iso.client.task_ref import TaskRef, function_of
from stem_iso.errors import UnknownTask
from stem_iso.task.context import TaskContext, current_context, entered, local_to
from stem_iso.task.enqueue_options import NO_OPTIONS, EnqueueOptions
from stem_iso.task.handler import FunctionHandler

if TYPE_CHECKING:
    from stem_iso.client.application import Application
    from stem_iso.client.result import TaskHandle

A = TypeVar("A")
P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class TaskBase(TaskRef[R_co], Generic[P, R_co]):
    """A task of an application, by name; its code may be elsewhere. Two of the same name and application are equal.

    To `help()`, `inspect` and editors it is still its function, but that the context is not among its parameters.
    """

    __wrapped__: Callable[..., Any]  # where the function is here

    def __init__(self, app: Application, name: str, options: EnqueueOptions = NO_OPTIONS) -> None:
        super().__init__(app, name, options)
        handler = function_of(app, name)
        if handler is not None:
            vars(self).update(handler.looks)

    def s(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R_co]:
        """Raises TypeError for a call that does not fit."""
        return Signature(cast("TaskBase[..., R_co]", self), self.bound(args, kwargs))

    def after(self, *args: Any, **kwargs: Any) -> Link[Any, R_co]:
        """The call without its first argument, which is the result of the step before it. Raises Misfit, a TypeError.

        A class handler has no first argument: it finds the result before it in `context.previous`.
        """
        call = Signature(cast("TaskBase[..., R_co]", self), self.bound_after(args, kwargs), follows=True)
        return Link(call)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R_co]:
        """Raises TypeError for a call that does not fit, InvalidOptions, PayloadTooLarge and BrokerUnavailable."""
        return self.s(*args, **kwargs).enqueue()

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R_co]:
        return await self.s(*args, **kwargs).aenqueue()

    @property
    def handler(self) -> FunctionHandler[Any]:
        """Raises UnknownTask where the function behind the task is not here."""
        handler = self.app.registry.resolve(self.name)
        if not isinstance(handler, FunctionHandler):
            raise UnknownTask(f"{self.name!r} is no function: call its handler, or enqueue it")
        return handler

    def _call_here(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[TaskContext, Callable[[], Any]]:
        """The context of a call here and now, and the call."""
        handler = self.handler
        context = self._context_here(handler.parameters.bind(args, kwargs))
        before = (context,) if handler.parameters.takes_context else ()
        return context, lambda: handler.function(*before, *args, **kwargs)

    def _context_here(self, args: dict[str, Any]) -> TaskContext:
        """Inside a handler, the handler's own: what is called there is part of it."""
        around = current_context()
        if around is not None and not around.local:
            return around
        return local_to(around, new_id(), self.name, args, self.app)

    def __reduce__(self) -> tuple[Any, ...]:
        return revive_task, (self.app, self.name, dict(self.options.given))


class Task(TaskBase[P, R_co]):
    """A function that can be called here or enqueued."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Here and now, with a local context: no broker, no limits."""
        context, call = self._call_here(args, kwargs)
        with entered(context):
            return cast(R_co, call())

    if TYPE_CHECKING:
        # By `__call__`, because a checker takes a first parameter off a callable, and off nothing else.
        def after(self: Callable[Concatenate[A, Q], R], *args: Q.args, **kwargs: Q.kwargs) -> Link[A, R]: ...


class AsyncTask(TaskBase[P, R_co]):
    """A coroutine function that can be called here or enqueued."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Here and now, with a local context: no broker, no limits."""
        context, call = self._call_here(args, kwargs)
        with entered(context):
            return cast(R_co, await call())

    if TYPE_CHECKING:

        def after(self: Callable[Concatenate[A, Q], Coroutine[Any, Any, R]], *args: Q.args, **kwargs: Q.kwargs) -> Link[A, R]: ...


def task_named(app: Application, name: str, options: EnqueueOptions = NO_OPTIONS) -> TaskBase[..., Any]:
    """The task of this name, whether or not its handler's code is here."""
    handler = function_of(app, name)
    is_async = handler is not None and inspect.iscoroutinefunction(handler.function)
    return (AsyncTask if is_async else Task)(app, name, options)


def revive_task(app: Application, name: str, options: dict[str, Any]) -> TaskBase[..., Any]:
    """What an unpickled `Task` becomes; one whose code is not here can still be enqueued, by name."""
    return task_named(app, name, EnqueueOptions(options))


class Declaring(Protocol):
    """What `@app.task(...)` answers: makes a task of a function, whose context, if it takes one, is not among the task's parameters."""

    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext, P], Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext, P], R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class Tasks:
    """`app.tasks[name]`: the tasks of an application's registry, class handlers included; their arguments are given by keyword."""

    def __init__(self, app: Application) -> None:
        self._app = app

    def __getitem__(self, name: str) -> TaskBase[..., Any]:
        """Raises UnknownTask, which is a LookupError."""
        self._app.registry.resolve(name)
        return task_named(self._app, name)

    def __contains__(self, name: object) -> bool:
        return name in self._app.registry

    def __iter__(self) -> Iterator[str]:
        return (handler.name for handler in self._app.registry)

    def __len__(self) -> int:
        return len(self._app.registry)
