"""The transfer of an application to isolates that cannot import it: its hooks, middleware and listeners of publishing, and its tasks.

    parent:  Stem ── carried ──> {name: pickled, None where that could not be} ── BootPayload ──> isolate: unpack ──> its bare application
    parent:  registry ── listed ──> [Listed] ── Definition ──> isolate: add ──> stand-ins in its bare application

Hooks and middleware must arrive: where one cannot be pickled, the worker, or the isolate that lacks it, raises and does not start. A
missing listener harms no task: one that cannot be pickled is named in the log, and gets nothing of what isolated handlers enqueue.
Of the tasks goes what enqueueing needs: their parameters, queue and options. So a handler there enqueues its siblings as everywhere; only
calling one on the spot is refused, since its code has not travelled.
Where the isolate imports the application, nothing travels, and the names of its middleware are compared with the worker's.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from stem_iso.client.app_location import Location
from stem_iso.errors import StemError, UnknownTask
from stem_iso.isolate.payload import pack
from stem_iso.isolate.payload import unpack as unpack_payload
from stem_iso.task.context import TaskContext
from stem_iso.task.handler import FunctionHandler, TaskHandler, TaskRegistry
from stem_iso.task.middleware import MiddlewareStack
from stem_iso.task.names import dotted, main_name
from stem_iso.task.options import OVERRIDABLE, TaskOptions

if TYPE_CHECKING:
    from stem_iso.app import Stem

log = logging.getLogger("stem_iso.worker")

HOOKS, MIDDLEWARE = "on_isolate_start", "middleware"
MUST = (HOOKS, MIDDLEWARE)


def carried(app: Stem, location: Location) -> dict[str, bytes | None]:
    """What isolates need of an application that they do not, or perhaps do not, find. Raises what pickling raises of what must arrive."""
    if location and location.module != main_name():
        return {}
    publish = (app.signals.before_task_publish, app.signals.after_task_publish)
    values: dict[str, tuple[object, ...]] = {HOOKS: tuple(app.isolate_start_hooks), MIDDLEWARE: tuple(app.middleware)}
    values |= {channel.name: channel.listeners for channel in publish}
    return {name: _attempted(name, value, sure=not location) for name, value in values.items() if value}


def _attempted(name: str, value: object, sure: bool) -> bytes | None:
    """`sure`: no isolate can import the application; else most likely all can, and none needs this."""
    try:
        return pickled(value)
    except BaseException as error:  # pickling runs user code
        if sure and name in MUST:
            raise
        if sure:
            log.warning("%s: its listeners cannot be pickled (%s), and hear nothing of what isolated handlers enqueue", name, error)
        return None


def unpack(app: Stem, packed: Mapping[str, bytes | None]) -> None:
    """Into an application that was made here instead of imported. Raises StemError, and what unpickling raises."""
    for name, body in packed.items():
        if body is None and name in MUST:
            raise StemError(f"{name}: what the application adds there cannot be pickled: make the application at the top of its module")
        values = () if body is None else unpack_payload(body)
        for value in values:
            if name == HOOKS:
                app.on_isolate_start(value)
            elif name == MIDDLEWARE:
                app.middleware.add(value)
            else:
                getattr(app.signals, name).connect(value)


def names_of(middleware: MiddlewareStack, main: str | None = None) -> list[str]:
    """`main` as in `names.dotted`."""
    return [dotted(type(each), main) for each in middleware]


def refuse_others(middleware: MiddlewareStack, workers: list[str], main: str) -> None:
    """Raises StemError where importing the application added another middleware than the worker has: tasks would run without it."""
    found = names_of(middleware, main)
    if found != workers:
        shown = [", ".join(each) or "none" for each in (workers, found)]
        raise StemError(f"middleware: the worker has {shown[0]}, importing its application gives {shown[1]}: add it in that module")


def pickled(value: object) -> bytes:
    """For `payload.unpack` in an isolate. What stands in `__main__` goes by name, into the namespace that the isolate's handlers share."""
    return pack(value, outside=False, by_name=True).data


# -- the catalog of tasks --------------------------------------------------------------------------------------------------------------

EMPTY = inspect.Parameter.empty
KINDS = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.VAR_KEYWORD,
)

DEFAULTS = TaskOptions()


class Listed(msgspec.Struct, frozen=True):
    """`options` are what an envelope is made from, checked against and shown by, without defaults; the worker has the handler itself for
    the rest.

    `parameters` are (name, kind, whether it has a default), None for a handler whose arguments go by keyword.
    """

    name: str
    options: dict[str, Any]
    parameters: list[tuple[str, int, bool]] | None


def listed(app: Stem) -> list[Listed]:
    found = []
    for handler in app.registry:
        known = app.options_of(handler.name)
        declared = {name: getattr(known, name) for name in (*OVERRIDABLE, "redact")}
        options = {name: value for name, value in declared.items() if value != getattr(DEFAULTS, name)}
        parameters = None
        if isinstance(handler, FunctionHandler):
            shape = handler.parameters.shape
            parameters = [(each.name, KINDS.index(each.kind), each.default is not EMPTY) for each in shape]
        found.append(Listed(handler.name, options, parameters))
    return found


def add(registry: TaskRegistry, catalog: Sequence[Listed]) -> None:
    for each in catalog:
        if each.name not in registry:
            registry.stand_in(_stand_in(each))


class Elsewhere(TaskHandler[Any]):
    """A handler whose code is in another process."""

    def __init__(self, name: str, options: TaskOptions) -> None:
        self.name, self.options = name, options
        self.isolate_entrypoint = self.call

    def call(self, context: TaskContext, args: dict[str, Any]) -> Any:
        raise UnknownTask(f"the code of {self.name!r} is not in this process; enqueue it")


class FunctionElsewhere:
    """A function whose code is in another process: what can be known of it is how it is called."""

    def __init__(self, name: str, signature: inspect.Signature) -> None:
        self.name, self.__signature__ = name, signature

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise UnknownTask(f"the code of {self.name!r} is not in this process; enqueue it")


def _stand_in(each: Listed) -> TaskHandler[Any]:
    given: Any = each.options
    options = TaskOptions(**given)
    if each.parameters is None:
        return Elsewhere(each.name, options)
    return FunctionHandler(FunctionElsewhere(each.name, _signature(each.parameters)), each.name, options, isolate=True, hints={})


def _signature(parameters: Sequence[tuple[str, int, bool]]) -> inspect.Signature:
    return inspect.Signature(
        [inspect.Parameter(name, KINDS[kind], default=None if has_default else EMPTY) for name, kind, has_default in parameters]
    )
