"""References to functions that travel by name; `child.functions` resolves them in the isolate.

    function ── importable? ──> EntrypointRef(n, place)      once per isolate; a number afterwards
        └─ lambda, closure, partial, bound method, of __main__ or a REPL ──> EntrypointRef(0): its bytes come with each call

By name only what stands where its name says, in a module that an isolate can import. A function that was replaced there since it was first
used still travels by its name, as the standard library's executors would have it.
"""

from __future__ import annotations

import sys
from itertools import count
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import msgspec

from stem_iso.isolate.child.functions import CARRIED, FunctionPlace
from stem_iso.isolate.interfaces import EntrypointRef

# Types whose instances are compared by identity: looking one up runs no user code.
NAMED = frozenset({FunctionType, BuiltinFunctionType, type})


class Named:
    """An entry and the title that its isolate bears."""

    __slots__ = ("entry", "title")

    def __init__(self, entry: EntrypointRef, title: str) -> None:
        self.entry, self.title = entry, title


class Names:
    """The functions that a pool has met. A race of two threads for a new one makes two entries, of which one is used on."""

    def __init__(self) -> None:
        self.carried = EntrypointRef(0, lambda ready: CARRIED)
        self._known: dict[Any, Named] = {}
        self._numbers = count(1)

    def find(self, function: Any) -> Named | None:
        """None: its bytes must travel."""
        if type(function) not in NAMED:
            return None
        return self._known.get(function) or self._learn(function)

    def _learn(self, function: Any) -> Named | None:
        place = place_of(function)
        if place is None:
            return None
        entry = EntrypointRef(next(self._numbers), lambda ready: msgspec.msgpack.encode(FunctionPlace(*place, _search_path())))
        return self._known.setdefault(function, Named(entry, title_of(function)))


def place_of(function: Any) -> tuple[str, str] | None:
    """Module and qualified name, where this very function stands there."""
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, ModuleType):
        return None  # a method of an object
    module_name, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module_name, str) or not isinstance(name, str) or module_name == "__main__":
        return None
    module = sys.modules.get(module_name)
    if getattr(module, "__spec__", None) is None:
        return None  # made by hand: nobody else can import it
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return (module_name, name) if found is function else None


def title_of(function: Any) -> str:
    """What `ps` shows while it runs."""
    name = getattr(function, "__qualname__", None) or getattr(type(function), "__qualname__", "function")
    return f"stem_iso: {name}"[:80]


def _search_path() -> tuple[str, ...]:
    return tuple(entry for entry in sys.path if isinstance(entry, str) and entry)
