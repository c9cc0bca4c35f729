"""Arguments that somebody gives a task anew, who was shown the old ones.

    shown   {"to": "ann@example.com", "token": "***"}
    given   {"to": "bob@example.com", "token": "***"}      ──> to is new, token stays as it is

All arguments are given: what is left out is gone, and has its default. "***" stands for the value that the argument has, whether or not it
is one that the task redacts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import MsgspecError

from stem_iso.client.task_ref import function_of
from stem_iso.task.arguments import REDACTED, pack_arguments
from stem_iso.task.codec import unpack

if TYPE_CHECKING:
    from stem_iso.brokers.base import StatusRecord
    from stem_iso.client.application import Application


def edited_arguments(app: Application, task: StatusRecord, given: Mapping[str, Any]) -> bytes:
    """Encoded. Raises TypeError for what does not fit the handler, where its code is here, for what cannot be sent, and for a "***" where
    there is no old value."""
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise TypeError(f"args: must be a mapping from parameter names, not a {type(given).__name__}")
    handler = function_of(app, task.name)
    if handler is not None:
        handler.parameters.fit(given)
    values = _restored(task.name, given, _old(task), None if handler is None else handler.parameters.extra)
    if handler is not None:
        handler.parameters.check_values({name: value for name, value in values.items() if given[name] is value})
    return pack_arguments(task.name, values)


def _restored(name: str, given: Mapping[str, Any], old: Mapping[str, Any], extra: str | None) -> dict[str, Any]:
    """`extra`: the name of `**kwargs`, whose values are arguments too."""
    values: dict[str, Any] = {}
    for argument, value in given.items():
        before = old.get(argument)
        if value == REDACTED:
            if argument not in old:
                raise TypeError(f"{name}: argument {argument!r} has no value that {REDACTED!r} could keep; give one")
            values[argument] = before
        elif argument == extra and isinstance(value, Mapping) and REDACTED in value.values():
            values[argument] = _restored(name, value, before if isinstance(before, Mapping) else {}, None)
        else:
            values[argument] = value
    return values


def _old(task: StatusRecord) -> Mapping[str, Any]:
    """Nothing where they are not kept, or cannot be read."""
    try:
        values = {} if task.args is None else unpack(task.args)
    except (MsgspecError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
