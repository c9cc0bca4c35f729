"""The entrypoints of an application, as isolates get them: how an isolate starts, and which code it is to run. `child.task_runner` is the
other half, in the isolate.

    boot_of(app) ─────────────────> Boot ── once per isolate ──> boot: the application imported, its hooks run ── ready: its tasks ──┐
    EntrypointTable(app).entry(n) ─> EntrypointRef.definition(ready) <───────────────────────────────────────────────────────────────┘
                                └── {"name": n}       the isolate's own application has this very handler
                                    {"place": "m:q"}  a function that can be imported, of an application that cannot be
                                    {"pickled": ...}  what nobody can import: closures, lambdas, functions of a REPL

Rule: cloudpickle carries only what the isolate cannot find by itself; a module's function by value would be a second copy of its globals.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from types import FunctionType
from typing import TYPE_CHECKING, Any

import msgspec

from stem_iso.brokers.records import BrokerOptions
from stem_iso.client.app_location import Location, locate
from stem_iso.client.task import TaskBase
from stem_iso.isolate.engine.shared_host.supervisor import HostBoot
from stem_iso.isolate.interfaces import Boot, EntrypointRef
from stem_iso.task.context_protocol import AT_ONCE
from stem_iso.task.handler import FunctionHandler, TaskHandler, declared_entrypoint, form_of
from stem_iso.task.names import main_name, module_name
from stem_iso.task.options import Form
from stem_iso.worker.app_transfer import Listed, carried, listed, names_of, pickled

if TYPE_CHECKING:
    from stem_iso.app import Stem

log = logging.getLogger("stem_iso.worker")  # where all that handlers log ends up

TARGET, HOST_TARGET = "stem_iso.worker.child.task_runner:boot", "stem_iso.worker.child.shared_host:boot"


TEXTS = 4 << 20  # more bytes for an error with its traceback, or a log record: each is cut where it is sent


class BootPayload(msgspec.Struct, frozen=True, kw_only=True):
    """`main` is what `__main__` means in the parent. `broker`, and the folder that a relative one means, are the parent's: its application
    may name another one. Where the password is `withheld`, `broker` has none. `first` is what `-A` names, imported before all others: what
    is set up there holds for every task; `included` follows the application. `modules` declare tasks beside those.
    `settings` are those that the parent's process has changed, see `client.isolate_settings`.
    `carried` is for an isolate that cannot import the application, `middleware` (names) for one that can: see `app_transfer`.
    """

    location: Location
    main: str
    path: list[str]
    folder: str
    broker: str
    withheld: bool
    site_folder: str
    max_result_bytes: int
    max_payload_bytes: int
    first: str | None = None
    included: tuple[str, ...] = ()
    modules: list[str] = []
    carried: dict[str, bytes | None] = {}
    middleware: list[str] = []
    settings: dict[str, Any] = {}

    @property
    def of_program(self) -> bool:
        """The application stands in the program's own module, perhaps below `if __name__ == "__main__":`, where no isolate finds it."""
        return bool(self.location) and self.location.module == self.main


class Definition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of `place` and `pickled` where the name alone does not do. `whole`: the function takes its parameters, not `(context, args)`;
    `coroutine`: a shared host runs it on its loop;
    `catalog`: the siblings of a task whose application cannot be imported; `redact`: what its errors may not show.
    """

    name: str
    place: str | None = None
    pickled: bytes | None = None
    whole: bool = False
    coroutine: bool = False
    catalog: list[Listed] = []
    redact: tuple[str, ...] = ()


def boot_of(app: Stem, secrets: Sequence[str] = (), options: BrokerOptions | None = None, time_limit: float = 60.0) -> Boot:
    """How an isolate of this application starts. `secrets` are names of environment variables that it must not see."""
    location, options = locate(app), options or app.broker_options
    app.site.withhold(secrets)
    payload = BootPayload(
        location=location,
        main=main_name(),
        path=[entry or os.getcwd() for entry in sys.path if isinstance(entry, str)],
        folder=os.getcwd(),
        broker=app.site.public if app.site.withheld else app.broker,
        withheld=app.site.withheld,
        site_folder=app.site.folder,
        max_result_bytes=options.max_result_bytes,
        max_payload_bytes=options.max_payload_bytes,
        first=app.named_by,
        included=app.includes,
        modules=_modules(app, location),
        carried=carried(app, location),
        middleware=names_of(app.middleware),
        settings={} if app.isolate_settings is None else app.isolate_settings.changed(),
    )
    largest = max(options.max_result_bytes, AT_ONCE * options.max_payload_bytes) + TEXTS
    level = log.getEffectiveLevel()
    return Boot(
        TARGET, msgspec.msgpack.encode(payload), tuple(secrets), time_limit, largest_frame=largest, log_level=level, worker_log=True
    )


def host_boot_of(app: Stem, isolate: Boot) -> HostBoot:
    """How the shared host of this application starts: as an isolate does, and with the worker if the application has inline handlers."""
    at_start = any(form_of(handler) is not Form.ISOLATED for handler in app.registry)
    return HostBoot(replace(isolate, target=HOST_TARGET, hosts=True), at_start)


class EntrypointTable:
    """The entrypoints of an application, each with its number."""

    def __init__(self, app: Stem, logs_observed: Callable[[], None] = lambda: None) -> None:
        """`logs_observed`: called before the first call in an isolate where `logs_are_observed`."""
        self._app, self._logs_observed, self._numbers = app, logs_observed, count(1)

    def entry(self, name: str) -> EntrypointRef:
        """A new entry for this task's handler as it is now. Raises UnknownTask."""
        handler = self._app.registry.resolve(name)
        return EntrypointRef(next(self._numbers), lambda ready: self._definition(handler, ready))

    def _definition(self, handler: TaskHandler[Any], ready: bytes) -> bytes:
        """What an isolate needs to run this handler; `ready` is what it found. Raises what pickling raises."""
        found: dict[str, str] = msgspec.msgpack.decode(ready)
        if LOGS_OBSERVED in found:
            self._logs_observed()
        if found.get(handler.name) == signature_of(handler):
            definition = Definition(name=handler.name)
        else:
            definition = msgspec.structs.replace(_carried(handler), catalog=listed(self._app))
        if form_of(handler) is Form.ASYNC:
            definition = msgspec.structs.replace(definition, coroutine=True)
        return msgspec.msgpack.encode(definition)


LOGS_OBSERVED = ""  # no name of a handler: a mark among what an isolate found


def logs_are_observed() -> bool:
    """Whether something has each record of this process beside the handlers, by a hook in `logging` itself, as Sentry's SDK does."""
    hook: Any = logging.Logger.callHandlers
    return type(hook) is not FunctionType or hook.__globals__ is not vars(logging)


def signature_of(handler: TaskHandler[Any], main: str | None = None) -> str:
    """Where a handler's code stands: it distinguishes two handlers of one name. `main`: as in `names.dotted`."""
    code = code_of(handler)
    return f"{module_name(str(getattr(code, '__module__', '')), main)}:{getattr(code, '__qualname__', type(code).__qualname__)}"


def code_of(handler: TaskHandler[Any]) -> Callable[..., Any]:
    declared = declared_entrypoint(handler)
    if declared is not None:
        return declared
    return handler.function if isinstance(handler, FunctionHandler) else handler.call


def function_at(place: str, name: str) -> Callable[..., Any] | None:
    """What stands at "module:qualified.name", or is the code behind the task that stands there; None where there is nothing to call."""
    module, _, qualname = place.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if isinstance(found, TaskBase):
        return code_of(found.app.registry.resolve(name)) if name in found.app.registry else None
    return found if callable(found) else None


def _carried(handler: TaskHandler[Any]) -> Definition:
    code = code_of(handler)
    whole = isinstance(handler, FunctionHandler) and declared_entrypoint(handler) is None
    place = _place(code, handler.name)
    if place is not None:
        return Definition(name=handler.name, place=place, whole=whole, redact=handler.options.redact)
    # Resolved here: a string annotation finds its name among the module's globals, which do not travel with the function.
    hints = dict(handler.parameters.hints) if isinstance(handler, FunctionHandler) and whole else None
    return Definition(name=handler.name, pickled=pickled((code, hints)), whole=whole, redact=handler.options.redact)


def _place(code: Callable[..., Any], name: str) -> str | None:
    """Where an import finds the code of this task; None if nowhere."""
    module = str(getattr(code, "__module__", ""))
    place = f"{module}:{getattr(code, '__qualname__', '')}"
    return place if module != "__main__" and function_at(place, name) is code else None


def _modules(app: Stem, location: Location) -> list[str]:
    """Where tasks and hooks are declared beside the application's module: a spare imports them before it is ready, on nobody's time."""
    places = [_place(code_of(handler), handler.name) for handler in app.registry]
    places += [_place(hook, "") for hook in app.isolate_start_hooks]  # a hook that nobody imports there would never run
    return sorted({place.partition(":")[0] for place in places if place} - {location.module, main_name()}) if location else []
