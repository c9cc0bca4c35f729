"""The handlers of an application, by name. Nothing that arrives through a broker finds code in any other way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stem_iso.errors import InvalidOptions, UnknownTask
from stem_iso.task.handler import TaskHandler, refuse_nonsense
from stem_iso.validation import did_you_mean


class TaskRegistry:
    """Owned by the application that it was given to; filled where tasks are declared, read everywhere else."""

    def __init__(self) -> None:
        self._handlers: dict[str, TaskHandler[Any]] = {}
        self._stand_ins: set[str] = set()

    def register(self, handler: TaskHandler[Any], override: bool = False) -> TaskRegistry:
        """Returns the registry, so that calls can be chained. Raises InvalidOptions for a second handler of the name, unless `override`."""
        if not isinstance(handler, TaskHandler):
            raise InvalidOptions(f"{handler!r} is no TaskHandler; give an instance, and use @app.task for a function")
        refuse_nonsense(handler)
        if handler.name in self._handlers and handler.name not in self._stand_ins and not override:
            raise InvalidOptions(f"a task named {handler.name!r} is registered already; rename it, or replace it with override=True")
        self._handlers[handler.name] = handler
        self._stand_ins.discard(handler.name)
        return self

    def stand_in(self, handler: TaskHandler[Any]) -> None:
        """Register it until a handler of its name comes, which replaces it: a module that is imported later declares the real one."""
        if handler.name not in self._handlers:
            self.register(handler)
            self._stand_ins.add(handler.name)

    def resolve(self, name: str) -> TaskHandler[Any]:
        """Raises UnknownTask."""
        try:
            return self._handlers[name]
        except KeyError:
            raise UnknownTask(f"no task is named {name!r}{did_you_mean(name, self._handlers)}") from None

    def __iter__(self) -> Iterator[TaskHandler[Any]]:
        return iter(list(self._handlers.values()))

    def __contains__(self, name: object) -> bool:
        return name in self._handlers

    def __len__(self) -> int:
        return len(self._handlers)

    def __repr__(self) -> str:
        return f"<TaskRegistry {', '.join(sorted(self._handlers)) or 'empty'}>"
