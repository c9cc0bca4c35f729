"""The application: where tasks are declared, and from where they are sent.

    @app.task(...)            ──> registry (names → handlers)
    task.enqueue(...)         ──> envelope_of ──┬──> broker.publish            outside of a task
                                                └──> context.publish ──> core  inside of one, with its lineage
    app.handle(id).result()   ──> watcher: one for all waits of this process

Rules
 1. A `Stem` opens nothing when it is made: a producer imports no loky, and sqlite3 or redis only with its first connection; an isolate,
    which imports the application for its handlers' sake, none of them at all.
 2. It is used by any thread, and survives a fork (`client/broker_pool.py`).
 3. It pickles as a name (`client/app_location.py`): what unpickles it gets the application of that place.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, cast, overload

from stem_iso.client import enqueue, event_stream
from stem_iso.client.app_location import locate, revive_app
from stem_iso.client.broker_pool import BrokerConfig, BrokerPool
from stem_iso.client.result import TaskHandle, aside
from stem_iso.client.schedules import Schedules
from stem_iso.client.task import AsyncTask, Declaring, Signature, Task, TaskBase, Tasks
from stem_iso.errors import InvalidOptions
from stem_iso.signals import Signals
from stem_iso.task.codec import Converter
from stem_iso.task.context import TaskContext, current_context
from stem_iso.task.entrypoint import Entrypoint, entrypoint_of
from stem_iso.task.handler import FunctionHandler, TaskHandler
from stem_iso.task.middleware import MiddlewareStack
from stem_iso.task.names import default_task_name
from stem_iso.task.options import EnqueueFields, OptionFields, TaskOptions
from stem_iso.task.registry import TaskRegistry
from stem_iso.validation import Duration, delay, flag, text

if TYPE_CHECKING:
    from typing import Concatenate

    from stem_iso.brokers.base import Broker, BrokerOptions
    from stem_iso.client.canvas import Part
    from stem_iso.client.canvas_result import CanvasHandle
    from stem_iso.client.waiting import Watcher
    from stem_iso.events import AnyEvent

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


class Stem:
    """An application. `broker` is a URL (`sqlite:///jobs.db`, `memory://`); none: STEM_ISO_BROKER, [tool.stem_iso] broker in
    ./pyproject.toml, else sqlite:///stem_iso.db, relative to the working folder of this moment. The other keywords are the broker's
    options.

    `app.signals.NAME.connect(listener)`: see `stem_iso.signals`; `app.middleware.add(...)`: see `stem_iso.task.middleware`.

    Raises InvalidOptions.
    """

    def __init__(
        self,
        broker: str | None = None,
        *,
        registry: TaskRegistry | None = None,
        block_time: Duration | None = None,
        claim_interval: Duration | None = None,
        default_visibility_timeout: Duration | None = None,
        max_redeliveries: int | None = None,
        dead_letter_ttl: Duration | None = None,
        max_payload_bytes: int | None = None,
        max_result_bytes: int | None = None,
        sync: str | None = None,
    ) -> None:
        options = {
            "block_time": block_time,
            "claim_interval": claim_interval,
            "default_visibility_timeout": default_visibility_timeout,
            "max_redeliveries": max_redeliveries,
            "dead_letter_ttl": dead_letter_ttl,
            "max_payload_bytes": max_payload_bytes,
            "max_result_bytes": max_result_bytes,
            "sync": sync,
        }
        self.site = BrokerConfig(broker, {name: value for name, value in options.items() if value is not None})
        self.registry = TaskRegistry() if registry is None else registry
        self.tasks = Tasks(self)
        self.schedules = Schedules(self)
        self.schedule = self.schedules.add
        self.broker_pool = BrokerPool(self.open_broker)
        self._watcher: Watcher | None = None  # made by the first wait
        self.isolate_start_hooks: list[Callable[[], Any]] = []
        self.signals = Signals()
        self.middleware = MiddlewareStack()
        self.made_in = str(sys._getframe(1).f_globals.get("__name__", ""))

    # -- declare -------------------------------------------------------------------------------------------------------------------

    # A coroutine function is a function too: the first overload that fits is meant, which the checker cannot see.
    @overload
    def task(self, function: Callable[Concatenate[TaskContext, P], Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def task(self, function: Callable[Concatenate[TaskContext, P], R], /) -> Task[P, R]: ...
    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        isolate: bool = False,
        override: bool = False,
        **options: Unpack[OptionFields],
    ) -> Declaring: ...
    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        isolate: bool = False,
        override: bool = False,
        **options: Unpack[OptionFields],
    ) -> Any:
        """Make a task of a function. `name`: default module and qualified name; `isolate`: the function runs in an isolate; the rest are
        the fields of `TaskOptions`.

        Raises InvalidOptions for options that cannot be meant, and for a name that is taken, unless `override`.
        """
        flag("isolate", isolate)
        declared = TaskOptions(**options)

        def declare(function: Callable[..., Any]) -> TaskBase[..., Any]:
            if not inspect.isroutine(function):
                raise InvalidOptions(f"{function!r} is no function; register a TaskHandler for anything else")
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise InvalidOptions(f"{function!r} is a generator; a task returns its result at once")
            chosen = default_task_name(function) if name is None else text("name", name)
            self.registry.register(FunctionHandler(function, chosen, declared, isolate), override)
            return self.task_named(chosen)

        return declare if function is None else declare(function)

    def register(self, handler: TaskHandler[Any], override: bool = False) -> TaskRegistry:
        """As `TaskRegistry.register`."""
        return self.registry.register(handler, override)

    def on_isolate_start(self, hook: F) -> F:
        """Decorator: run `hook()` once in each isolate, and in each inline host of a worker by command, before it is ready."""
        self.isolate_start_hooks.append(hook)
        return hook

    def task_named(self, name: str) -> TaskBase[..., Any]:
        """The task of this name, whether or not its handler's code is here."""
        handler = self.registry.resolve(name) if name in self.registry else None
        is_async = isinstance(handler, FunctionHandler) and inspect.iscoroutinefunction(handler.function)
        return (AsyncTask if is_async else Task)(self, name)

    def options_of(self, name: str) -> TaskOptions:
        """Raises UnknownTask."""
        return self.registry.resolve(name).options

    def entrypoint(self, name: str) -> Entrypoint:
        """What runs for this task in this process. Raises UnknownTask."""
        return entrypoint_of(self.registry.resolve(name), self)

    def check(self) -> None:
        """Resolve the annotations of all tasks now, as a worker does when it starts. Raises InvalidOptions."""
        for handler in self.registry:
            if isinstance(handler, FunctionHandler):
                handler.parameters.check()

    # -- send ----------------------------------------------------------------------------------------------------------------------

    def enqueue(
        self, task: str | TaskBase[..., Any], args: Mapping[str, Any] | None = None, **options: Unpack[EnqueueFields]
    ) -> TaskHandle[Any]:
        """Enqueue by name, with arguments by parameter name; a producer needs no handler code. Options as in `Task.using`."""
        return self.send([enqueue.signature(self, task, args or {}, options)])[0]

    async def aenqueue(
        self, task: str | TaskBase[..., Any], args: Mapping[str, Any] | None = None, **options: Unpack[EnqueueFields]
    ) -> TaskHandle[Any]:
        return (await self.asend([enqueue.signature(self, task, args or {}, options)]))[0]

    def enqueue_many(self, signatures: Iterable[Signature[R]]) -> list[TaskHandle[R]]:
        """One batch; all of it is checked before any is sent. Handles in the order of the signatures. Raises Misfit for a canvas."""
        return cast("list[TaskHandle[R]]", self.send(enqueue.batch(self, signatures)))

    async def aenqueue_many(self, signatures: Iterable[Signature[R]]) -> list[TaskHandle[R]]:
        return cast("list[TaskHandle[R]]", await self.asend(enqueue.batch(self, signatures)))

    def enqueue_from(
        self, context: TaskContext, task: str | TaskBase[..., Any], args: Mapping[str, Any], options: Mapping[str, Any]
    ) -> TaskHandle[Any]:
        """As `enqueue`, on behalf of the running task of this context."""
        return enqueue.send(self, [enqueue.signature(self, task, args, options)], context)[0]

    def send(self, signatures: Sequence[Signature[Any]]) -> list[TaskHandle[Any]]:
        """Publish these calls in one step: through the task that runs here, if one does, else through the broker."""
        return enqueue.send(self, signatures, current_context())

    def compose(self, part: Part[Any]) -> CanvasHandle[Any]:
        """What `Part.enqueue` does."""
        from stem_iso.client.canvas_builder import send

        return send(self, part, current_context())

    async def acompose(self, part: Part[Any]) -> CanvasHandle[Any]:
        return await aside(lambda: self.compose(part))

    async def asend(self, signatures: Sequence[Signature[Any]]) -> list[TaskHandle[Any]]:
        """As `send`, beside the loop: the broker's store may be busy."""
        return await aside(lambda: self.send(signatures))

    # -- ask -----------------------------------------------------------------------------------------------------------------------

    def handle(self, task_id: str) -> TaskHandle[Any]:
        """The handle of a task that was enqueued anywhere; its methods raise UnknownResult for an id that is not known."""
        return TaskHandle(self, task_id)

    def canvas(self, id: str) -> CanvasHandle[Any]:
        """The handle of a canvas that was enqueued anywhere, by the id of its handle. Raises UnknownResult."""
        from stem_iso.client.canvas_result import find

        return find(self, id)

    def revoke(self, task_id: str, terminate: bool = False, *, queue: str | None = None) -> bool:
        """Cancel a task; with `terminate`, kill it where it runs. True if there was anything to revoke. `queue` only helps to find it."""
        context = current_context()
        if context is not None and context.speaks_for(self):
            return context.revoke(task_id, terminate)
        with self.broker_pool.borrow() as broker:
            return broker.revoke(task_id, terminate, queue)

    def result_converter(self, name: str) -> Converter | None:
        """How results of this task become values; None where its code is not here."""
        handler = self.registry.resolve(name) if name in self.registry else None
        return handler.parameters.result if isinstance(handler, FunctionHandler) else None

    def events(self, timeout: Duration | None = None) -> Iterator[AnyEvent]:
        """What happens in all workers, from now on. Ends after `timeout` without an event; closing the iterator stops listening."""
        return event_stream.events(self.site, None if timeout is None else delay("timeout", timeout))

    def aevents(self, timeout: Duration | None = None) -> AsyncIterator[AnyEvent]:
        """As `events`, in a loop."""
        return event_stream.aevents(self.site, None if timeout is None else delay("timeout", timeout))

    # -- the broker ----------------------------------------------------------------------------------------------------------------

    @property
    def broker(self) -> str:
        """The broker's URL, a password included; without it in isolates from which `--secret-env` keeps it."""
        return self.site.url

    @property
    def broker_options(self) -> BrokerOptions:
        return self.site.options

    def open_broker(self) -> Broker:
        """A fresh broker for the calling thread, which closes it; nothing is opened before its first use."""
        return self.site.open()

    @property
    def watcher(self) -> Watcher:
        """What all waits for results go through."""
        if self._watcher is None:
            from stem_iso.client.waiting import Watcher

            # setdefault decides between threads that come at once.
            self._watcher = vars(self).setdefault("_first_watcher", Watcher(self.open_broker))
        return self._watcher

    def close(self) -> None:
        """Close the producer's connections; the next use opens new ones."""
        self.broker_pool.close()
        if self._watcher is not None:
            self._watcher.close()

    def __reduce__(self) -> tuple[Any, ...]:
        place = locate(self)
        return revive_app, (place.module, place.attribute, place.file, self.site.public if self.site.withheld else self.site.url)

    def __repr__(self) -> str:
        return f"<Stem {self.site.shown}, {len(self.registry)} tasks>"
