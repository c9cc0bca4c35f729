"""Modules of an application: what `include` and `autodiscover` name, and which modules of tasks a package has.

include=("shop.tasks",) ── modules_named ──> checked names ── imported where a worker starts, and in each process that runs tasks
autodiscover("shop") ────── task_modules ──> "shop.tasks", "shop.orders.tasks": what exists, by name
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module, util
from pathlib import Path

from stem_iso.errors import InvalidOptions

TASKS = "tasks"


def modules_named(field: str, names: Iterable[str]) -> tuple[str, ...]:
    """Raises InvalidOptions for what is no list of modules' dotted names."""
    given = (names,) if isinstance(names, str) or not isinstance(names, Iterable) else tuple(names)
    for name in given:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise InvalidOptions(f"{field}: {name!r} must be a module as Python imports it, such as 'shop.tasks'")
    return tuple(dict.fromkeys(given))


def task_modules(package: str) -> list[str]:
    """The modules named `tasks` in this package and in the packages directly in it, sorted. Imports those packages, not the modules.

    Raises InvalidOptions for a package that is not there, and whatever a package raises.
    """
    try:
        folders = getattr(import_module(package), "__path__", None)
    except ModuleNotFoundError as error:
        if error.name is not None and (package == error.name or package.startswith(error.name + ".")):
            raise InvalidOptions(f"autodiscover: there is no package {package!r}") from None
        raise
    if folders is None:
        raise InvalidOptions(f"autodiscover: {package!r} is a module, not a package; name it in `include`")
    inner = {entry.name for folder in folders if Path(folder).is_dir() for entry in Path(folder).iterdir() if _holds_tasks(entry)}
    candidates = [package, *(f"{package}.{name}" for name in sorted(inner))]
    return [f"{each}.{TASKS}" for each in candidates if util.find_spec(f"{each}.{TASKS}") is not None]


def _holds_tasks(entry: Path) -> bool:
    return entry.name.isidentifier() and ((entry / f"{TASKS}.py").is_file() or (entry / TASKS).is_dir())
