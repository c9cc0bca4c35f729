"""The application: where tasks are declared, and from where they are sent.

    @app.task(...)            ──> registry (names → handlers)
    task.enqueue(...)         ──> Envelope ─────┬──> broker.publish            outside of a task
                                                └──> context.publish ──> core  inside of one, with its lineage
    app.handle(id).result()   ──> watcher: one for all waits of this process

Rules
 1. A `Stem` opens nothing when it is made: a producer imports no loky, and sqlite3 or redis only with its first connection; an isolate,
    which imports the application for its handlers' sake, none of them at all.
 2. It is used by any thread, and survives a fork (`client/broker_pool.py`).
 3. It pickles as a name (`client/app_location.py`): what unpickles it gets the application of that place.
 4. It is one idea, the facade: a method is a few lines that say which part of `client/` does the work.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, cast, overload

from msgspec import MsgspecError

from stem_iso.client import action_log, bulk, enqueue, event_stream, task_filter, task_list, worker_control
from stem_iso.client.app_location import Location, NotThere, current_app, import_app, locate
from stem_iso.client.app_modules import modules_named, task_modules
from stem_iso.client.broker_pool import BrokerConfig, BrokerPool, Listeners
from stem_iso.client.event_stream import unknown
from stem_iso.client.queue_stats import QueueStats, queue_stats
from stem_iso.client.result import TaskHandle, in_thread
from stem_iso.client.schedules import Schedules
from stem_iso.client.task import AsyncTask, Declaring, Signature, Task, TaskBase, Tasks, task_named
from stem_iso.client.task_defaults import task_defaults
from stem_iso.client.task_stats import TaskStats, task_stats
from stem_iso.errors import InvalidOptions
from stem_iso.signals import Signals
from stem_iso.task.codec import Converter, unpack
from stem_iso.task.context import TaskContext, current_context
from stem_iso.task.handler import (
    Entrypoint,
    FunctionHandler,
    TaskHandler,
    TaskRegistry,
    entrypoint_of,
    form_of,
    redacted_arguments,
)
from stem_iso.task.middleware import MiddlewareStack
from stem_iso.task.names import default_task_name
from stem_iso.task.options import EnqueueFields, OptionFields, TaskOptions, with_defaults
from stem_iso.validation import Duration, delay, flag, text

if TYPE_CHECKING:
    from typing import Concatenate

    from stem_iso.brokers.base import Broker, BrokerOptions
    from stem_iso.client.action_log import ActionInfo
    from stem_iso.client.bulk import BulkAction, BulkResult
    from stem_iso.client.canvas import Part
    from stem_iso.client.canvas_result import CanvasHandle
    from stem_iso.client.event_feed import EventFeed
    from stem_iso.client.isolate_settings import IsolateSettings
    from stem_iso.client.result_watcher import Watcher
    from stem_iso.client.task_filter import FilterFields
    from stem_iso.client.task_list import TaskPage
    from stem_iso.client.transactions import Transactions
    from stem_iso.client.worker_control import Acknowledged
    from stem_iso.events import AnyEvent

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")
F = TypeVar("F", bound=Callable[..., Any])


class Stem:
    """An application. `broker` is a URL (`sqlite:///jobs.db`, `memory://`); none: STEM_ISO_BROKER, [tool.stem_iso] broker in
    ./pyproject.toml, else sqlite:///stem_iso.db, relative to the working folder of this moment. `include`: modules that declare tasks; a
    worker imports them when it starts, and so does each process that runs tasks. `defaults`: what holds for a task that does not say it
    itself; STEM_ISO_DEFAULT_HARD_TIME_LIMIT and its like, and [tool.stem_iso.defaults], override them. The other keywords are the broker's
    options.

    `app.signals.NAME.connect(listener)`: see `stem_iso.signals`; `app.middleware.add(...)`: see `stem_iso.task.middleware`.

    Raises InvalidOptions.
    """

    named_by: str | None = None  # the module that `-A` names, in the worker
    clock: Callable[[], float] = staticmethod(time.time)  # wall-clock seconds; a test moves them
    transactions: Transactions | None = None  # of the framework around it, set by its integration
    isolate_settings: IsolateSettings | None = None  # as `transactions`

    def __init__(
        self,
        broker: str | None = None,
        *,
        registry: TaskRegistry | None = None,
        include: Iterable[str] = (),
        defaults: TaskOptions | None = None,
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
        self.site = BrokerConfig(broker, options)
        self.registry = TaskRegistry() if registry is None else registry
        self.defaults = task_defaults(defaults)
        self.includes = modules_named("include", include)
        self._options: dict[str, tuple[TaskHandler[Any], TaskOptions]] = {}  # by task: what `options_of` has found
        self.tasks = Tasks(self)
        self.schedules = Schedules(self)
        self.schedule = self.schedules.add
        self.broker_pool, self.listeners = BrokerPool(self.open_broker), Listeners(self.open_broker)
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
        return task_named(self, name)

    def options_of(self, name: str) -> TaskOptions:
        """The options of this task, with the application's defaults where it says nothing. Raises UnknownTask, InvalidOptions."""
        handler = self.registry.resolve(name)
        known = self._options.get(name)
        if known is None or known[0] is not handler:
            known = self._options[name] = handler, _with_defaults(handler, self.defaults)
        return known[1]

    def entrypoint(self, name: str) -> Entrypoint:
        """What runs for this task in this process. Raises UnknownTask."""
        return entrypoint_of(self.registry.resolve(name), self)

    def autodiscover(self, *packages: str) -> None:
        """Import the modules named `tasks` of these packages and of the packages in them: `shop.tasks`, `shop.orders.tasks`, what exists.

        Raises InvalidOptions for a package that is not there, and whatever a module raises while it is imported.
        """
        for package in modules_named("autodiscover", packages):
            for module in task_modules(package):
                import_module(module)

    def check(self) -> None:
        """Import what `include` names, and resolve annotations and options of all tasks now, as a worker does when it starts.

        Raises InvalidOptions, and whatever those modules raise.
        """
        for module in self.includes:
            import_module(module)
        for handler in self.registry:
            self.options_of(handler.name)
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
        return await self._beside_loop(lambda: self.compose(part))

    async def asend(self, signatures: Sequence[Signature[Any]]) -> list[TaskHandle[Any]]:
        """As `send`, beside the loop: the broker's store may be busy."""
        return await self._beside_loop(lambda: self.send(signatures))

    async def _beside_loop(self, call: Callable[[], V]) -> V:
        return await (in_thread(call) if self.transactions is None else self.transactions.in_thread(call))

    # -- ask -----------------------------------------------------------------------------------------------------------------------

    def handle(self, task_id: str) -> TaskHandle[Any]:
        """The handle of a task that was enqueued anywhere. For an unknown id its methods raise UnknownResult; `forget` is False."""
        return TaskHandle(self, task_id)

    def canvas(self, id: str) -> CanvasHandle[Any]:
        """The handle of a canvas that was enqueued anywhere, by the id of its handle. Raises UnknownResult."""
        from stem_iso.client.canvas_result import find

        return find(self, id)

    def revoke(self, task_id: str, terminate: bool = False, *, queue: str | None = None) -> bool:
        """Cancel a task; with `terminate`, kill it where it runs. True if there was anything to revoke, False if it had ended.

        `queue` only helps to find it. Raises UnknownResult; in a handler, which goes on after it, an unknown id is False too.
        """
        context = current_context()
        if context is not None and context.speaks_for(self):
            return context.revoke(task_id, terminate)
        with self.broker_pool.borrow() as broker:
            if broker.revoke(task_id, terminate, queue):
                return True
            if broker.status([task_id], queue)[0] is None:
                raise unknown(task_id)
            return False

    def result_converter(self, name: str) -> Converter | None:
        """How results of this task become values; None where its code is not here."""
        handler = self.registry.resolve(name) if name in self.registry else None
        return handler.parameters.result if isinstance(handler, FunctionHandler) else None

    def shown_arguments(self, name: str, args: bytes | None) -> dict[str, Any] | None:
        """The arguments of a task, encoded, as people are shown them: by parameter name, "***" for those that the task redacts. None where
        there are none, where they cannot be read, and where its code is not here to say which are redacted.
        """
        if args is None or name not in self.registry:
            return None
        try:
            values = unpack(args)
        except (MsgspecError, ValueError, RecursionError):  # ValueError: text that is no UTF-8
            return None
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            return None
        return redacted_arguments(self.registry.resolve(name), values)

    def events(self, timeout: Duration | None = None) -> Iterator[AnyEvent]:
        """What happens in all workers, from now on. Ends after `timeout` without an event; closing the iterator stops listening."""
        return event_stream.events(self.site, None if timeout is None else delay("timeout", timeout))

    def aevents(self, timeout: Duration | None = None) -> AsyncGenerator[AnyEvent, None]:
        """As `events`, in a loop."""
        return event_stream.aevents(self.site, None if timeout is None else delay("timeout", timeout))

    # -- operate: see docs/operations.md; `by` is who does it, for the list of actions, default "user@host" -------------------------------

    def list_tasks(
        self, *, limit: int = 100, cursor: str | None = None, newest_first: bool = True, **which: Unpack[FilterFields]
    ) -> TaskPage:
        """A page of 1 to 1,000 of the tasks that match all of `which` (see `FilterFields`), in the order in which the store got them. A
        task that is there throughout is met exactly once by who goes on with `cursor`. Raises InvalidOptions, with the field's name.
        """
        return task_list.page(self, task_filter.checked(which, self.clock()), limit, cursor, newest_first)

    async def alist_tasks(
        self, *, limit: int = 100, cursor: str | None = None, newest_first: bool = True, **which: Unpack[FilterFields]
    ) -> TaskPage:
        return await in_thread(lambda: self.list_tasks(limit=limit, cursor=cursor, newest_first=newest_first, **which))

    def queue_stats(self) -> list[QueueStats]:
        """Every queue that holds something, is served, is paused, or was used within the last day, by name."""
        return queue_stats(self)

    async def aqueue_stats(self) -> list[QueueStats]:
        return await in_thread(self.queue_stats)

    def task_stats(self, name: str | None = None, minutes: int = 60, *, queue: str | None = None) -> TaskStats:
        """What happened to the tasks of this name (None: of all) in the last 1 to 1,440 minutes, this one included."""
        return task_stats(self, name, minutes, queue)

    async def atask_stats(self, name: str | None = None, minutes: int = 60, *, queue: str | None = None) -> TaskStats:
        return await in_thread(lambda: self.task_stats(name, minutes, queue=queue))

    def pause(self, queue: str | None = None, *, task: str | None = None, timeout: Duration = 5.0, by: str | None = None) -> Acknowledged:
        """Let nothing new begin of this queue, or of the tasks of this name, until `resume`; what runs ends. It is kept in the broker, and
        holds for workers that start later. Answers the ids of the workers that obeyed within `timeout`. Raises InvalidOptions.
        """
        return worker_control.pause(self, queue, task, timeout, by)

    async def apause(
        self, queue: str | None = None, *, task: str | None = None, timeout: Duration = 5.0, by: str | None = None
    ) -> Acknowledged:
        return await in_thread(lambda: self.pause(queue, task=task, timeout=timeout, by=by))

    def resume(self, queue: str | None = None, *, task: str | None = None, timeout: Duration = 5.0, by: str | None = None) -> Acknowledged:
        """Undo `pause`; what is not paused is left as it is."""
        return worker_control.resume(self, queue, task, timeout, by)

    async def aresume(
        self, queue: str | None = None, *, task: str | None = None, timeout: Duration = 5.0, by: str | None = None
    ) -> Acknowledged:
        return await in_thread(lambda: self.resume(queue, task=task, timeout=timeout, by=by))

    def control(self, worker_id: str, action: str, value: Any = None, *, timeout: Duration = 5.0, by: str | None = None) -> Acknowledged:
        """Order a worker, or all by "*": "concurrency" N, "drain" (finish what runs, take nothing new, stay), "resume" (end that),
        "stop" (as TERM does), "log-level" WORD, "kill" PID (one of its isolates), "stack" PID (where that is: in `.texts`).

        Answers the ids of those that obeyed; `.refused` says which did not want to and why, `.silent` which live and did not answer within
        `timeout`. All empty: there is no such worker. Raises InvalidOptions for an action or a value that cannot be meant.
        """
        return worker_control.control(self, worker_id, action, value, timeout, by)

    async def acontrol(
        self, worker_id: str, action: str, value: Any = None, *, timeout: Duration = 5.0, by: str | None = None
    ) -> Acknowledged:
        return await in_thread(lambda: self.control(worker_id, action, value, timeout=timeout, by=by))

    def bulk(
        self,
        action: BulkAction,
        *,
        dry_run: bool = False,
        all: bool = False,
        by: str | None = None,
        progress: Callable[[BulkResult], object] | None = None,
        **which: Unpack[FilterFields],
    ) -> BulkResult:
        """Do `action` to all tasks that match `which` (see `FilterFields`), some hundreds at a time; `progress` gets the result so far
        after each. "delete" drops what is kept of ended tasks. A dry run only counts what matches.

        Raises InvalidOptions, also where no filter is given without `all=True`.
        """
        return bulk.bulk(self, action, which, all=all, dry_run=dry_run, by=by, progress=progress)

    async def abulk(
        self,
        action: BulkAction,
        *,
        dry_run: bool = False,
        all: bool = False,
        by: str | None = None,
        progress: Callable[[BulkResult], object] | None = None,
        **which: Unpack[FilterFields],
    ) -> BulkResult:
        """`progress` is called in another thread."""
        return await in_thread(lambda: self.bulk(action, dry_run=dry_run, all=all, by=by, progress=progress, **which))

    def actions(self, limit: int = 100) -> list[ActionInfo]:
        """What operators did, newest first; the broker keeps 1,000."""
        return action_log.actions(self, limit)

    async def aactions(self, limit: int = 100) -> list[ActionInfo]:
        return await in_thread(lambda: self.actions(limit))

    def log_action(self, action: str, target: str = "", result: str = "", *, by: str | None = None) -> None:
        """Leave a line in that list, of what an operator did by your own program: "retry", an id, "run 2". The methods above do it."""
        action_log.log(self, action, target, result, by)

    # -- the broker ----------------------------------------------------------------------------------------------------------------

    @property
    def broker(self) -> str:
        """The broker's URL, a password included; without it in isolates from which `--secret-env` keeps it.

        It may be set until the first use: afterwards, and for a URL that cannot be meant, InvalidOptions.
        """
        return self.site.url

    @broker.setter
    def broker(self, url: str) -> None:
        if self.site.in_use:
            raise InvalidOptions(f"broker: the application is in use at {self.site.shown}; set it before the first enqueue or look")
        self.move_to(url)

    @contextmanager
    def on_site(self, site: BrokerConfig) -> Iterator[None]:
        """Inside the block the application is on another broker, with connections of its own: for tests."""
        before = self.site, self.broker_pool, self.listeners
        self.site, self.broker_pool, self.listeners = site, BrokerPool(self.open_broker), Listeners(self.open_broker)
        try:
            yield
        finally:
            self.close()
            self.site, self.broker_pool, self.listeners = before

    def move_to(self, url: str) -> None:
        """To another broker, with the application's options of brokers; what is open there is closed. Raises InvalidOptions."""
        self._put_on(BrokerConfig(url, self.site.overrides))

    def configure_as(self, other: Stem) -> None:
        """Take over broker, defaults and modules of an application that was made of changed settings; what is open is closed."""
        self._put_on(BrokerConfig(other.broker, other.site.overrides))
        self.defaults, self.includes = other.defaults, other.includes
        self._options.clear()

    def _put_on(self, site: BrokerConfig) -> None:
        self.close()
        self.site, self.listeners = site, Listeners(self.open_broker)

    @property
    def broker_options(self) -> BrokerOptions:
        return self.site.options

    def open_broker(self) -> Broker:
        """A fresh broker for the calling thread, which closes it; nothing is opened before its first use."""
        return self.site.open()

    @property
    def watcher(self) -> Watcher:
        """What all waits for results go through."""
        from stem_iso.client.result_watcher import Watcher

        return self.listeners.of(Watcher)

    @property
    def event_feed(self) -> EventFeed:
        """What all streams of a task's events in loops go through."""
        from stem_iso.client.event_feed import EventFeed

        return self.listeners.of(EventFeed)

    def close(self) -> None:
        """Close the producer's connections; the next use opens new ones."""
        self.broker_pool.close()
        self.listeners.close()

    def __reduce__(self) -> tuple[Any, ...]:
        place = locate(self)
        return revive_app, (place.module, place.attribute, place.file, self.site.public if self.site.withheld else self.site.url)

    def __repr__(self) -> str:
        return f"<Stem {self.site.shown}, {len(self.registry)} tasks>"


def _with_defaults(handler: TaskHandler[Any], defaults: TaskOptions) -> TaskOptions:
    try:
        return with_defaults(handler.options, defaults, form_of(handler))
    except InvalidOptions as error:
        raise InvalidOptions(f"{handler.name}, with the application's defaults: {error}") from None


def revive_app(module: str, attribute: str, file: str | None, broker: str) -> Stem:
    """What an unpickled `Stem` becomes."""
    location = Location(module, attribute, file)
    current = current_app.get(None)
    if isinstance(current, Stem) and (not location or locate(current) == location):
        return current
    try:
        return import_app(location, Stem) if location else Stem(broker)
    except NotThere:
        if not isinstance(current, Stem):
            raise
        return current
