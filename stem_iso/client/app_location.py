"""Location of an application: the module and attribute by which another process finds it again.

    Stem ── locate ──> Location(module, attribute, file) ── travels ──> isolate: import_app ──> the same application
                       Location("", "", None): nobody can find it (a REPL, an application made inside a function)

A `Stem` remembers the module that made it; which attribute holds it is looked up when it is asked for, because a module is still being
executed while its application is made. `Stem` and `Task` pickle as names: whoever unpickles one gets the application of that place, which
in an isolate is the one that the isolate runs (`current_app`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from contextvars import ContextVar
from importlib import import_module, util
from pathlib import Path
from types import ModuleType
from typing import Protocol, TypeVar

import msgspec

from stem_iso.errors import StemError
from stem_iso.task.names import main_name


class Locatable(Protocol):
    """What an application has to say so that it can be found again: the module that made it."""

    made_in: str


A = TypeVar("A")
current_app: ContextVar[Locatable] = ContextVar("stem_iso.current_app")  # in an isolate: the application that it runs
importing: ContextVar[bool] = ContextVar("stem_iso.importing", default=False)


class Location(msgspec.Struct, frozen=True):
    """`module` is a real name, never `__main__`; `file` is set where the module is the program's own file, to be loaded from there."""

    module: str = ""
    attribute: str = ""
    file: str | None = None

    def __bool__(self) -> bool:
        return bool(self.module)


NOWHERE = Location()


def locate(app: Locatable) -> Location:
    """Where `app` can be found by importing, NOWHERE if it cannot."""
    maker = sys.modules.get(app.made_in)
    for module in [maker, *(module for module in list(sys.modules.values()) if module is not maker)]:
        # Some programs put objects into sys.modules that are no modules; reading their attributes could run anything.
        if isinstance(module, ModuleType) and (attribute := _holding(module, app)) is not None:
            found = _location(module, attribute)
            if found:
                return found
    return NOWHERE


def _holding(module: ModuleType, app: Locatable) -> str | None:
    return next((name for name, value in list(vars(module).items()) if value is app), None)


def _location(module: ModuleType, attribute: str) -> Location:
    if module.__name__ != "__main__":
        # Without a spec it was made by hand; and `builtins._` is what a REPL showed last.
        importable = getattr(module, "__spec__", None) is not None and module.__name__ != "builtins"
        return Location(module.__name__, attribute) if importable else NOWHERE
    name = main_name()
    if name == "__main__":
        return NOWHERE
    if getattr(module, "__spec__", None) is not None:
        return Location(name, attribute)
    file = Path(str(module.__file__)).absolute()
    return Location(name, attribute, str(file)) if file.exists() else NOWHERE


class NotThere(StemError):
    """The module is there, and the application is not: it was made below `if __name__ == "__main__":`, say."""


def import_app(location: Location, kind: type[A]) -> A:
    """The application at this place, which is of class `kind`. Raises whatever the module raises, and NotThere where it is not there."""
    token = importing.set(True)
    try:
        module = _load(location) if location.file else import_module(location.module)
    finally:
        importing.reset(token)
    app = getattr(module, location.attribute, None)
    if not isinstance(app, kind):
        raise NotThere(f"{location.module}:{location.attribute} is no {kind.__name__} when it is imported, but {app!r}")
    return app


def import_modules(modules: Iterable[str]) -> None:
    """Modules that must be there before any task runs. Raises whatever they raise."""
    token = importing.set(True)
    try:
        for module in modules:
            import_module(module)
    finally:
        importing.reset(token)


def import_beside(modules: Iterable[str]) -> None:
    """Modules that declare tasks of an application that is there by now. One that does not import is asked for again by its tasks."""
    token = importing.set(True)
    try:
        for module in modules:
            with suppress(Exception):  # user code; whoever needs it gets the traceback
                import_module(module)
    finally:
        importing.reset(token)


def refuse_while_importing(what: str) -> None:
    """A program that enqueues, or starts a worker, wherever its module is imported would do so in every isolate, without end."""
    if importing.get():
        raise StemError(f'{what} while an isolate imports the module: put it below `if __name__ == "__main__":`')


def _load(location: Location) -> ModuleType:
    """A program's own file, under its real name: `if __name__ == "__main__":` stays shut."""
    loaded = sys.modules.get(location.module)
    if loaded is not None and getattr(loaded, "__file__", None) == location.file:
        return loaded
    spec = util.spec_from_file_location(location.module, location.file)
    if spec is None or spec.loader is None:
        raise StemError(f"{location.file} cannot be loaded as a module")
    module = util.module_from_spec(spec)
    sys.modules[location.module] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:  # whatever ends an import, Ctrl-C too: half a module must not stay importable
        del sys.modules[location.module]
        raise
    return module
