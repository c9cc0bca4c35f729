"""Transfer of the program's `__main__`, which no isolate can import: one namespace per isolate, filled piece by piece.

    program:  value ── Pickler ──> pickle, in which what stands in `__main__` is a name
                          └─ names, and those that their code uses ──> each pickled apart: a unit ──> the table
    isolate:  the table ── settle ──> sys.modules["__main__"] ── standing ──> the pickle's names

Rules
 1. A unit is loaded where its bytes are others than those that came last under its name. So what the program changes arrives with the
    next call, and what code in the isolate has changed (an initializer that sets a model, a counter, a cache) stays as long as the isolate,
    as in a process of multiprocessing.
 2. Functions and classes refer to each other by name, and functions look into the isolate's `__main__` for their globals: what one sets,
    all see. Definitions that need each other to be loaded (two classes that hold each other) make one unit.
 3. A function that is found under its name there can be pickled by name there: by a pool of multiprocessing in a handler.
 4. What does not stand at the top of `__main__` (a lambda, a closure) travels with its call, and shares the globals.

Not promised: that two globals that are one object in the program (`A = B = []`) are one in the isolate.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterable
from functools import cache, lru_cache
from types import FunctionType, ModuleType
from typing import Any

import msgspec

# What every module has of its own: the isolate's `__main__` too.
OWN = frozenset(
    {"__name__", "__file__", "__spec__", "__loader__", "__package__", "__doc__", "__builtins__", "__cached__", "__annotations__"}
)
CACHED: Any = type(lru_cache(abs))

_decode = msgspec.msgpack.Decoder(list[tuple[list[str], bytes]]).decode


def main_module() -> ModuleType:
    return sys.modules["__main__"]


def main_globals() -> dict[str, Any]:
    return vars(main_module())


class _Globals:
    """In a pickle: the globals of the `__main__` that it is loaded in."""

    def __reduce__(self) -> tuple[Any, ...]:
        return main_globals, ()


# -- the program's side ----------------------------------------------------------------------------------------------------------------


def name_in_main(value: Any) -> str | None:
    """The name under which a function or class stands at the top of `__main__`."""
    kind = type(value)
    if kind is not FunctionType and kind is not CACHED and not issubclass(kind, type):
        return None
    if getattr(value, "__module__", None) != "__main__":
        return None
    name = getattr(value, "__qualname__", None)
    return name if isinstance(name, str) and main_globals().get(name) is value else None


@cache
def pickler() -> Any:
    """The class of picklers for what goes to an isolate."""
    import cloudpickle  # 10 ms, where nothing else has needed it

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        """`met`: names that the pickle needs when it is loaded. `used`: names that its code may look up later."""

        def __init__(self, file: Any, protocol: int, buffer_callback: Any = None, inside: frozenset[str] = frozenset()) -> None:
            super().__init__(file, protocol=protocol, buffer_callback=buffer_callback)
            self.inside, self.met, self.used = inside, set[str](), set[str]()

        def reducer_override(self, value: Any) -> Any:
            name = name_in_main(value)
            if name is not None and name not in self.inside:
                self.met.add(name)
                return standing, (name,)
            if type(value) is CACHED and name is not None:
                return _cached_again, (value.__wrapped__, value.cache_parameters())
            if type(value) is FunctionType and value.__globals__ is main_globals():
                return self._in_main(value)
            if value is main_module():
                return main_module, ()
            return super().reducer_override(value)

        def _in_main(self, function: Any) -> Any:
            make, (code, _, *rest), (state, slots), *others = self._dynamic_function_reduce(function)
            self.used |= slots["__globals__"].keys()
            return make, (code, _Globals(), *rest), (state, {**slots, "__globals__": {}}), *others

    return Pickler


def _cached_again(function: Any, parameters: dict[str, Any]) -> Any:
    return lru_cache(**parameters)(function)


def table_of(names: Iterable[str]) -> bytes:
    """All that a pickle needs, and what that needs in turn. Raises what pickling raises."""
    bodies: dict[frozenset[str], bytes] = {}
    needs: dict[str, set[str]] = {}
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        if name in needs or name in OWN or name not in main_globals():
            continue
        bodies[frozenset({name})], needs[name], used = _apart(frozenset({name}))
        waiting |= needs[name] | used
    for together in _circles(needs):
        for name in together:
            bodies.pop(frozenset({name}), None)
        bodies[together] = _apart(together)[0]
    return msgspec.msgpack.encode([(sorted(unit), body) for unit, body in bodies.items()])


def _apart(names: frozenset[str]) -> tuple[bytes, set[str], set[str]]:
    import io

    file = io.BytesIO()
    made = pickler()(file, 5, inside=names)
    made.dump({name: main_globals()[name] for name in sorted(names)})
    return file.getvalue(), made.met, made.used


def _circles(needs: dict[str, set[str]]) -> set[frozenset[str]]:
    """Names that need each other, each set of them once."""
    reach = {name: _reachable(name, needs) for name, direct in needs.items() if direct}
    return {frozenset(other for other in found if name in reach.get(other, ())) for name, found in reach.items() if name in found}


def _reachable(name: str, needs: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(needs[name])
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += needs.get(each, ())
    return found


# -- the isolate's side ----------------------------------------------------------------------------------------------------------------


class Arrivals:
    """What came last under which names, and what of a table is still to be loaded. One per process; used by the thread that runs calls."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, ...], tuple[int, int]] = {}  # length and hash
        self._waiting: dict[str, tuple[tuple[str, ...], bytes]] = {}

    def settle(self, table: bytes) -> None:
        """Raises what loading raises: what has not been loaded then is loaded when it comes again."""
        for names, body in _decode(table):
            unit = tuple(names)
            if self._last.get(unit) != (len(body), hash(body)):
                self._waiting |= dict.fromkeys(names, (unit, body))
        try:
            while self._waiting:
                self.load(next(iter(self._waiting)))
        finally:
            self._waiting.clear()

    def load(self, name: str) -> None:
        """If it waits. One unit may need another."""
        found = self._waiting.get(name)
        if found is None:
            return
        unit, body = found
        for each in unit:
            del self._waiting[each]
        main_globals().update(pickle.loads(body))
        self._last[unit] = (len(body), hash(body))


_arrivals = Arrivals()  # as `sys.modules`, which it fills
settle = _arrivals.settle


def standing(name: str) -> Any:
    """What stands in `__main__` under this name."""
    _arrivals.load(name)
    return main_globals()[name]
