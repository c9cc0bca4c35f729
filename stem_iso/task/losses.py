"""Losses of an argument on its way: what a model or a dataclass holds, and does not send. It is refused, where nothing would say so later.

    value ── pack ──> bytes ── unpack ──> arrived        masked(model, its dump)       a SecretStr of pydantic is sent as "**********"
      └────────── cut_down(value, arrived) ──┘           cut_down(value, arrived)      a field with exclude=True arrives as its default,
                                                                                       an instance of a subclass as the annotated class
Of a result, secrets alone are refused: its fields may be excluded on purpose, and the work has been done.

Rules
 1. Judged is what was sent, and what reading it gives: a model whose own serializer sends the real value loses nothing.
 2. What cannot be compared is taken for kept.
 3. A message has names of fields, parameters and classes, and no value.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from pathlib import PurePath
from typing import Any, NamedTuple
from uuid import UUID

from stem_iso.json_data import is_model

MASK = "**********"  # what pydantic writes for a secret
ATOMS = (str, bytes, bytearray, int, float, type(None), date, time, timedelta, Decimal, UUID, Enum, PurePath)


# -- secrets, in the dump of a model of pydantic -----------------------------------------------------------------------------------------


def masked(model: Any, sent: Any) -> str | None:
    """What is wrong with this dump of a model, None where it holds every secret. `sent` is the dump in JSON's types."""
    kept = model.model_dump(mode="python", by_alias=True, round_trip=True, warnings=False)  # of the same shape, with secrets in it
    place = next(_masked(model, kept, sent, type(model).__name__), None)
    if place is None:
        return None
    path, kind = place
    return f"{path}: a {kind} would arrive as {MASK!r}; send {path}.get_secret_value() by itself (an argument: named in redact)"


def _masked(owner: Any, kept: Any, sent: Any, path: str) -> Iterator[tuple[str, str]]:
    """`owner` is the object of which `kept` is the dump, where that is known: it says which keys are names of fields."""
    if sent == MASK and hasattr(kept, "get_secret_value"):
        if kept.get_secret_value() not in (MASK, MASK.encode()):
            yield path, type(kept).__name__
    elif isinstance(kept, Mapping) and isinstance(sent, Mapping):
        for (key, item), part in zip(kept.items(), sent.values(), strict=False):
            name = _field_of(owner, key)
            held = getattr(owner, name, None) if name else owner.get(key) if isinstance(owner, Mapping) else None
            yield from _masked(held, item, part, f"{path}.{name}" if name else f"{path}[...]")
    elif isinstance(kept, list | tuple | set | frozenset) and isinstance(sent, list):
        owners = owner if isinstance(owner, list | tuple | set | frozenset) else [None] * len(sent)
        for number, (held, item, part) in enumerate(zip(owners, kept, sent, strict=False)):
            yield from _masked(held, item, part, f"{path}[{number}]")


def _field_of(owner: Any, key: Any) -> str | None:
    if not is_model(type(owner)):
        return None
    fields = type(owner).model_fields
    named = (name for name, field in fields.items() if key in (field.serialization_alias, field.alias))
    return key if key in fields else next(named, None)


# -- fields and subclasses, by what reading gives ----------------------------------------------------------------------------------------


def cut_down(value: Any, arrived: Any, path: str) -> str | None:
    """What this value would lose, None where nothing. `path` is what a message calls the value."""
    try:
        return next(_cut(value, arrived, path), None)
    except Exception:  # user code, such as a property; values that are nested deeper than can be followed
        return None


def _cut(value: Any, arrived: Any, path: str) -> Iterator[str]:
    if isinstance(value, list | tuple) and isinstance(arrived, list | tuple):
        if _may_differ(value, arrived):
            for number, (item, part) in enumerate(zip(value, arrived, strict=False)):
                yield from _cut(item, part, f"{path}[{number}]")
    elif isinstance(value, set | frozenset) and isinstance(arrived, set | frozenset):
        strangers = [item for item in value if item not in arrived] if _may_differ(value, arrived) else []
        for item in strangers:
            yield from _cut(item, next(iter(arrived)), f"{path}[...]")
    elif isinstance(value, Mapping) and isinstance(arrived, Mapping):
        if len(value) == len(arrived) and _may_differ(value.values(), arrived.values()):
            for item, part in zip(value.values(), arrived.values(), strict=False):
                yield from _cut(item, part, f"{path}[...]")
    elif is_record(type(arrived)):
        yield from _cut_record(value, arrived, path)


def _may_differ(values: Iterable[Any], arrived: Iterable[Any]) -> bool:
    """One look for all: a long list of what can lose nothing costs little."""
    kinds = set(map(type, values))
    return kinds != set(map(type, arrived)) or not all(map(harmless, kinds))


def _cut_record(value: Any, arrived: Any, path: str) -> Iterator[str]:
    kind, found = type(value), type(arrived)
    if kind is not found and issubclass(kind, found) and not _is_parametrized(kind, found) and _names(kind) != _names(found):
        whole, part = kind.__name__, found.__name__
        yield f"{path}: a {whole} would arrive as a {part}, cut down to it; annotate it as {whole}, or send a {part}"
    elif issubclass(found, kind) or issubclass(kind, found):
        for field in fields_of(kind):
            before, after = getattr(value, field.name, None), getattr(arrived, field.name, None)
            given = field.excluded and field.name in value.model_fields_set and field.name not in arrived.model_fields_set
            if given and not _same(before, after):  # and no validator of the model gives it
                yield _excluded(f"{path}.{field.name}")
            elif not field.excluded:
                yield from _cut(before, after, f"{path}.{field.name}")


def left_out(value: Any, error: object, path: str) -> str | None:
    """What is wrong with a model that could not be read: a field that it needs, and does not send; None where the error is another one."""
    declared = type(value).model_fields if is_model(type(value)) else {}
    needed = (name for name, field in declared.items() if field.exclude and f"{name}: Field required" in str(error))
    return next((_excluded(f"{path}.{name}") for name in needed), None)


def _excluded(path: str) -> str:
    return f"{path}: its model excludes it from what is sent, and it would be lost; send it beside the model"


def _is_parametrized(kind: type, found: type) -> bool:
    """Whether this is `Page[int]` of pydantic, which is a subclass of `Page`."""
    origins = [getattr(cls, "__pydantic_generic_metadata__", {}).get("origin") for cls in (kind, found)]
    return origins[0] is not None and origins[0] in (found, origins[1])


def _same(before: Any, after: Any) -> bool:
    """Equal, as far as can be said."""
    try:
        if before is after or before == after or (before != before and after != after):
            return True
    except Exception:  # user code
        return True
    equality: Any = type(before).__eq__
    return type(before) is type(after) and equality is object.__eq__


# -- what there is to look at, once for each class ---------------------------------------------------------------------------------------


class Field(NamedTuple):
    """`excluded`: pydantic leaves it out of what is sent, always or now and then."""

    name: str
    excluded: bool


def is_record(cls: type) -> bool:
    return is_model(cls) or dataclasses.is_dataclass(cls) or hasattr(cls, "__struct_fields__") or hasattr(cls, "__attrs_attrs__")


def _harmless(cls: type) -> bool:
    """Whether a value of exactly this type, which arrives as this type, can have lost nothing."""
    return issubclass(cls, ATOMS) or (is_record(cls) and not fields_of(cls))


def _names(cls: Any) -> tuple[str, ...]:
    """The fields of a record."""
    if is_model(cls):
        return tuple(cls.model_fields)
    return tuple(getattr(cls, "__struct_fields__", None) or (field.name for field in _declared(cls)))


def _fields(cls: type) -> tuple[Field, ...]:
    """The fields of a record to look at: those that may be left out, and those that may hold another record."""
    if is_model(cls):
        declared: Any = cls
        every = {
            name: Field(name, bool(field.exclude or getattr(field, "exclude_if", None))) for name, field in declared.model_fields.items()
        }
        hints = {name: field.annotation for name, field in declared.model_fields.items()}
    else:
        every, hints = {name: Field(name, False) for name in _names(cls)}, _hints(cls)
    return tuple(field for name, field in every.items() if field.excluded or not _is_inert(hints.get(name, Any)))


harmless: Callable[[Any], bool] = lru_cache(maxsize=4096)(_harmless)
fields_of: Callable[[Any], tuple[Field, ...]] = lru_cache(maxsize=4096)(_fields)


def _declared(cls: Any) -> Any:
    return dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else getattr(cls, "__attrs_attrs__", ())


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except Exception:  # an annotation is user code
        return {}


def _is_inert(annotation: Any) -> bool:
    """Whether no value of this type holds a record."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _is_inert(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return True
    if origin is not None:
        container = origin in (typing.Union, types.UnionType) or (isinstance(origin, type) and not is_record(origin))
        return container and all(part is Ellipsis or _is_inert(part) for part in typing.get_args(annotation))
    if hasattr(annotation, "__supertype__"):
        return _is_inert(annotation.__supertype__)
    return annotation is None or (isinstance(annotation, type) and issubclass(annotation, ATOMS))
