"""Plain JSON of any value that a task may bear: for programs at the command line, for web frameworks, for logs.

Enums become their values, tuples and sets lists, bytes base64, datetimes ISO 8601, models of pydantic what pydantic says of them in JSON,
under their aliases. What JSON has no form for, such as a map with keys that are no texts, is written as text rather than refused: somebody
is looking for a fault.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec


def to_json(value: Any) -> bytes:
    """One line of JSON. Raises RecursionError for what is nested too deeply."""
    try:
        return msgspec.json.encode(value, enc_hook=_plain_or_text)
    except (TypeError, ValueError, RecursionError):
        return msgspec.json.encode(
            _keyed(msgspec.to_builtins(value, builtin_types=(bytes, datetime), enc_hook=_plain_or_text, str_keys=False))
        )


def to_plain(value: Any) -> Any:
    """The same as values that `json.dumps` takes."""
    return msgspec.json.decode(to_json(value))


def is_model(cls: type) -> bool:
    """Whether it is a model of pydantic 2, which whoever has one has imported; nothing here does."""
    return isinstance(cls, type) and hasattr(cls, "__pydantic_validator__") and hasattr(cls, "model_validate_json")


def inlined_schema(of: type) -> dict[str, Any]:
    """The JSON schema of a type that does not contain itself, in one piece: without references, so that it fits into anybody's document."""
    (schema,), components = msgspec.json.schema_components([of])

    def inline(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return inline(components[part["$ref"].rpartition("/")[2]])
            return {key: inline(value) for key, value in part.items()}
        return [inline(each) for each in part] if isinstance(part, list) else part

    found: dict[str, Any] = inline(schema)
    return found


def _plain_or_text(value: Any) -> Any:
    if is_model(type(value)):
        try:
            return value.model_dump(mode="json", by_alias=True, warnings=False)
        except ValueError:  # of pydantic, for a field that it has no JSON for
            pass
    return str(value)


def _keyed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): _keyed(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list | tuple | set | frozenset):
        return [_keyed(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    return value
