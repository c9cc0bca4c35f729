"""Names of errors that no error bears: what `retry_for` and `dont_retry_for` say, against the exceptions that are loaded.

    "jobs.Bsy"           jobs has no Bsy                        "requests.Timeout"   its name is requests.exceptions.Timeout
    "Busy"               no built-in exception                  "elsewhere.Busy"     None, where elsewhere is not imported: nothing is known

Rule: nothing is imported to find a name, and nothing is asked that might import something. Where a name may still come into being (a module
that was not imported, or answers for its names by `__getattr__`), nothing is said of it.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from stem_iso.task.names import dotted, main_name


class ErrorNames:
    """The exceptions that are loaded now. `homes` are modules of the application: a name meant may be theirs."""

    def __init__(self, homes: Iterable[str]) -> None:
        self._loaded = {_name(cls) for cls in _exceptions()}
        self._homes = {home.partition(".")[0] for home in homes}

    def flaw(self, name: str) -> str | None:
        """What is wrong with this name, None where nothing is known to be."""
        if name in self._loaded or not all(part.isidentifier() for part in name.split(".")):
            return None
        if "." not in name:
            return f"which is no built-in exception{self._meant(name)}"
        module, rest = _module_of(name)
        if module is None:
            return None
        found = _found(module, rest)
        if found is MISSING:
            return f"which {name.removesuffix('.' + '.'.join(rest))} does not have{self._meant(name)}"
        if found is UNKNOWN:
            return None
        if not (isinstance(found, type) and issubclass(found, BaseException)):
            return f"which is no exception{self._meant(name)}"
        return f"whose own name is {_name(found)!r}: write that, or the class itself"

    def _meant(self, name: str) -> str:
        homes = self._homes | {name.partition(".")[0]}
        near = {each.rpartition(".")[2]: each for each in sorted(self._loaded) if "." not in each or each.partition(".")[0] in homes}
        close = difflib.get_close_matches(name.rpartition(".")[2], near, n=1)
        return f"; did you mean {near[close[0]]!r}?" if close else ""


MISSING, UNKNOWN = object(), object()


def _exceptions() -> set[type[BaseException]]:
    found: set[type[BaseException]] = set()
    waiting: list[type[BaseException]] = [BaseException]
    while waiting:
        cls = waiting.pop()
        if cls not in found:
            found.add(cls)
            waiting.extend(type.__subclasses__(cls))
    return found


def _name(cls: type) -> str:
    try:
        return dotted(cls)
    except Exception:  # user code: a metaclass may answer for `__module__` and `__qualname__`
        return cls.__name__


def _module_of(name: str) -> tuple[ModuleType | None, list[str]]:
    """The imported module that the name begins with, the longest one, and what follows."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:length])
        found = sys.modules.get(module) or (sys.modules.get("__main__") if module == main_name() else None)
        if found is not None:
            return found, parts[length:]
    return None, parts


def _found(module: ModuleType, rest: list[str]) -> Any:
    """What stands in the module under that name. UNKNOWN: it may yet come to stand there."""
    if not isinstance(module, ModuleType) or rest[0] not in vars(module):
        is_known = isinstance(module, ModuleType) and "__getattr__" not in vars(module) and len(rest) == 1
        return MISSING if is_known else UNKNOWN  # of several parts the first may be a module that was not imported
    found = vars(module)[rest[0]]
    for part in rest[1:]:
        if not isinstance(found, type):
            return UNKNOWN
        if part not in vars(found):
            return MISSING
        found = vars(found)[part]
    return found
