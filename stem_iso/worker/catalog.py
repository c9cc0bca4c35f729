"""The catalog of an application's tasks, for isolates that cannot import it: what enqueueing needs of each.

    parent: registry ── listed ──> [Listed] ── with the entrypoint's definition ──> isolate: add ──> stand-ins in its bare application

A handler there may enqueue its siblings as everywhere: their arguments are bound to their parameters, their queue and options hold. Only
calling one of them on the spot is refused, since its code has not travelled.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import msgspec

from stem_iso.errors import UnknownTask
from stem_iso.task.context import TaskContext
from stem_iso.task.handler import FunctionHandler, TaskHandler
from stem_iso.task.options import OVERRIDABLE, TaskOptions
from stem_iso.task.registry import TaskRegistry

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
    """`options` are what an envelope is made from or checked against, without defaults; the worker has the handler itself for the rest.

    `parameters` are (name, kind, whether it has a default), None for a handler whose arguments go by keyword.
    """

    name: str
    options: dict[str, Any]
    parameters: list[tuple[str, int, bool]] | None


def listed(registry: TaskRegistry) -> list[Listed]:
    found = []
    for handler in registry:
        declared = {name: getattr(handler.options, name) for name in OVERRIDABLE}
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
