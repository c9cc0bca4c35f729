"""The transfer of an application to isolates that cannot import it: of its hooks, its middleware, and its listeners of publishing.

    parent:  Stem ── carried ──> {name: pickled, None where that could not be} ── BootPayload ──> isolate: unpack ──> its bare application

Hooks and middleware must arrive: where one cannot be pickled, the worker, or the isolate that lacks it, raises and does not start. A
missing listener harms no task: one that cannot be pickled is named in the log, and hears nothing of what isolated handlers enqueue.
Where the isolate imports the application, nothing travels, and the names of its middleware are compared with the worker's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from stem_iso.client.app_location import Location
from stem_iso.errors import StemError
from stem_iso.isolate.payload import pack
from stem_iso.isolate.payload import unpack as unpack_parcel
from stem_iso.task.middleware import MiddlewareStack
from stem_iso.task.names import dotted, main_name

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


def unpack(app: Stem, told: Mapping[str, bytes | None]) -> None:
    """Into an application that was made here instead of imported. Raises StemError, and what unpickling raises."""
    for name, body in told.items():
        if body is None and name in MUST:
            raise StemError(f"{name}: what the application adds there cannot be pickled: make the application at the top of its module")
        values = () if body is None else unpack_parcel(body)
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
