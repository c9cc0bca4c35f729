"""Entrypoint of an attempt, inline or in an isolate: encoded arguments in, encoded result out.

    Job.payload ── decode_call ──> header, args ── Entrypoint.unpack ──> values ── Entrypoint(context, values) ──> value ── pack ──> bytes

A function under `@app.task` gets its parameters, converted; a class handler's `call` and an `isolate_entrypoint` get `(context, args)`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import msgspec

from stem_iso.task.arguments import InvalidArguments
from stem_iso.task.codec import unpack
from stem_iso.task.context import Sender, TaskContext
from stem_iso.task.handler import FunctionHandler, TaskHandler, declared_entrypoint

NOTHING = nullcontext()


class Entrypoint:
    """`target(context, values)` is the user's code; `function` the handler whose parameters the values are, None where they go in as one
    dict; `sender` the application that the context enqueues through.
    """

    def __init__(
        self, name: str, target: Callable[..., Any], function: FunctionHandler[Any] | None = None, sender: Sender | None = None
    ) -> None:
        self.name, self._target, self._function, self.sender = name, target, function, sender

    def unpack(self, data: bytes, before: bytes | None = None) -> dict[str, Any]:
        """`before`: the first argument, encoded, where it is not among the others. Raises InvalidArguments.

        A class handler has no first argument: it finds the result before it in `context.previous`.
        """
        if self._function is not None:
            return self._function.parameters.unpack(data, before)
        try:
            values = unpack(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidArguments(f"{self.name}: the arguments are no data ({error})") from None
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            raise InvalidArguments(f"{self.name}: the arguments are no map of names, but {type(values).__name__}")
        return values

    def around(self, context: TaskContext) -> AbstractContextManager[object]:
        """The middleware of its application."""
        return NOTHING if self.sender is None else self.sender.middleware.around(context)

    def __call__(self, context: Any, values: dict[str, Any]) -> Any:
        return self._target(context, values)

    def __repr__(self) -> str:
        return f"<Entrypoint {self.name!r}>"


def entrypoint_of(handler: TaskHandler[Any], sender: Sender | None = None) -> Entrypoint:
    """What runs for this handler: its isolate entrypoint where it declares one, else its call."""
    declared = declared_entrypoint(handler)
    if declared is not None:
        return Entrypoint(handler.name, declared, sender=sender)
    return Entrypoint(handler.name, handler.call, handler if isinstance(handler, FunctionHandler) else None, sender)
