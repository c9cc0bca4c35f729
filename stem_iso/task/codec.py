"""Values to msgpack and back by annotation.

    producer: value ── pack ──> bytes ── Converter(annotation).unpack ──> value of the annotated type (handler), and results the other way

msgspec knows most types: dataclasses, attrs classes, TypedDict, NamedTuple and generics of them among those. This adds models of pydantic
(whoever has one has imported pydantic; nothing here does), paths, subclasses of plain types, and unions of several textual types
(`str | Path`, `str | UUID`), which msgspec refuses: their members are tried in the order written. An annotation that nothing here can
build is refused by `Converter`, before any task depends on it.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cached_property
from pathlib import PurePath
from typing import Any
from uuid import UUID

import msgspec

from stem_iso.json_data import is_model
from stem_iso.task.losses import MASK, cut_down, harmless, is_record, left_out, masked

TEXTUAL = (str, bytes, bytearray, PurePath, datetime, date, time, timedelta, UUID, Decimal, Enum)

PLAIN = (str, bool, float, bytes, int)  # types of values that arrive as they are; an int may be too large, text no UTF-8
INTEGERS = -(2**63), 2**64  # the least of msgpack, and the first that is too large

Unconvertible = TypeError  # what `Converter` raises for an annotation, and `pack` for a value


def _plain(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return bytes.__getitem__(value, slice(None))
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return dict(value)
    if is_model(type(value)):
        return value.model_dump(mode="json", by_alias=True, round_trip=True, warnings=False)
    raise TypeError(f"a {type(value).__name__} is no plain data")


def _unmasked(value: Any) -> Any:
    """As `_plain`. Raises TypeError for a model that sends less than it holds."""
    plain = _plain(value)
    if is_model(type(value)) and (reason := masked(value, plain)) is not None:
        raise TypeError(reason)
    return plain


def _build(annotation: type, value: Any) -> Any:
    if annotation is object:
        return value
    if issubclass(annotation, PurePath) and isinstance(value, str):
        return annotation(value)
    if is_model(annotation):
        return _model(annotation, value)
    raise msgspec.ValidationError(f"Expected `{annotation.__name__}`, got `{type(value).__name__}`")


def _model(cls: Any, value: Any) -> Any:
    """From JSON, in which a strict model too takes a text for a date."""
    try:
        return cls.model_validate_json(msgspec.json.encode(value))
    except ValueError as error:  # pydantic's own is one; its text has a line for each field, and addresses of its documentation
        details = error.errors(include_url=False) if hasattr(error, "errors") else []
        reasons = [f"{'.'.join(map(str, each['loc'])) or cls.__name__}: {each['msg']}" for each in details]
        raise msgspec.ValidationError("; ".join(reasons) or str(error)) from None


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_sorting_encoder = msgspec.msgpack.Encoder(enc_hook=_plain, order="deterministic")
_refusing_encoder = msgspec.msgpack.Encoder(enc_hook=_unmasked)
_MASK = MASK.encode()


def pack(value: Any, canonical: bool = False) -> bytes:
    """msgpack; `canonical` sorts what has no order, so that equal values are equal bytes. Raises TypeError for what is no plain data,
    and for secrets of pydantic that would be sent as a mask."""
    try:
        packed = (_sorting_encoder if canonical else _encoder).encode(value)
        if _MASK in packed:
            _refusing_encoder.encode(value)
        return packed
    except (ValueError, OverflowError, RecursionError) as error:  # surrogates, integers past 64 bits, endless nesting
        raise TypeError(str(error)) from None


def first_refused(values: Mapping[str, Any]) -> tuple[str, TypeError] | None:
    """The name of the first value that `pack` refuses, and why; None where it refuses none of them by itself."""
    for name, value in values.items():
        try:
            pack(value)
        except TypeError as error:
            return name, error
    return None


def unpack(data: bytes | msgspec.Raw) -> Any:
    """Plain data. Raises msgspec.MsgspecError."""
    return msgspec.msgpack.decode(data)


class Converter:
    """Makes values of one annotated type, and None where `optional`.

    Raises `Unconvertible` at construction where no value of that type could ever be made.
    """

    def __init__(self, annotation: Any, optional: bool = False) -> None:
        self.annotation = annotation
        self._decoders = list(_decoders(annotation))
        if optional:
            self._decoders.append(msgspec.msgpack.Decoder(None))
        self._plain = annotation if any(annotation is kind for kind in PLAIN) else None

    @cached_property
    def _has_records(self) -> bool:
        """Found at the first check: a worker, which makes a converter of each parameter at its start, checks nothing."""
        return any(is_record(getattr(info, "cls", int)) for each in self._decoders for info in _type_infos(each.type))

    def unpack(self, data: bytes | msgspec.Raw) -> Any:
        """Raises msgspec.ValidationError, with the reason of the first member of a union."""
        failure: msgspec.MsgspecError | None = None
        for decoder in self._decoders:
            try:
                return decoder.decode(data)
            except msgspec.MsgspecError as error:
                failure = failure or error
        raise failure or msgspec.ValidationError("no type fits")

    def surely_arrives(self, value: Any) -> bool:
        """A glance that spares `check` for the commonest values; False says nothing."""
        kind = type(value)
        return kind is self._plain and (kind is not int or INTEGERS[0] <= value < INTEGERS[1])

    def check(self, value: Any, name: str) -> None:
        """Whether this value would arrive; errors call it `name`. Raises TypeError for what cannot be sent, or would lose something of it,
        msgspec.MsgspecError for what is of another type.
        """
        if self.surely_arrives(value):
            return
        packed = pack(value)
        try:
            arrived = self.unpack(packed)
        except msgspec.MsgspecError as error:
            if (reason := left_out(value, error, name)) is not None:
                raise TypeError(reason) from None
            raise
        if not self._has_records or (type(value) is type(arrived) and harmless(type(value))):
            return
        if (reason := cut_down(value, arrived, name)) is not None:
            raise TypeError(reason)


def _decoders(annotation: Any) -> Iterator[msgspec.msgpack.Decoder[Any]]:
    if annotation in (typing.NoReturn, typing.Never):
        annotation = Any
    try:
        refuse_foreign(annotation)
        yield msgspec.msgpack.Decoder(annotation, dec_hook=_build)
    except TypeError:
        alternatives = _alternatives(annotation)
        if len(alternatives) < 2:
            raise
        for alternative in alternatives:
            yield from _decoders(alternative)


def _alternatives(annotation: Any) -> list[Any]:
    """A union's members that are written as text or bytes, each for itself, in order; what is left of the union stands where it began.

    Two dataclasses stay together, and refused: nothing in the data says which of them it was.
    """
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return [annotation]
    members = typing.get_args(annotation)
    others = [member for member in members if not _is_textual(member)]
    found: list[Any] = []
    for member in members:
        if _is_textual(member):
            found.append(member)
        elif member is others[0]:
            found.append(typing.Union[tuple(others)])  # noqa: UP007 - there is no other way to make one of a list
    return found


def _is_textual(member: Any) -> bool:
    return isinstance(member, type) and issubclass(member, TEXTUAL)


def refuse_foreign(annotation: Any) -> None:
    """Raises TypeError if a type that can never be made of plain data is in the annotation, however deep."""
    from msgspec import inspect  # 5 ms, and only declarations need it

    for info in _type_infos(annotation):
        if isinstance(info, inspect.CustomType) and not _can_build(info.cls):
            raise TypeError(f"nothing of type {info.cls.__module__}.{info.cls.__qualname__} can be made of plain data")


def _type_infos(annotation: Any) -> Iterator[Any]:
    """What msgspec knows of the types in the annotation, however deep. Raises TypeError for those that it refuses."""
    from msgspec import inspect

    waiting: list[Any] = [inspect.type_info(annotation)]
    seen: set[int] = set()
    while waiting:
        info = waiting.pop()
        if id(info) not in seen:
            seen.add(id(info))
            yield info
            waiting.extend(_parts(info))


def _can_build(cls: type) -> bool:
    return cls is object or (isinstance(cls, type) and (issubclass(cls, PurePath) or is_model(cls)))


def _parts(info: Any) -> Iterator[Any]:
    """The type infos (and fields) that this one is made of; they hold each other in plain attributes and tuples."""
    from msgspec import inspect

    for name in getattr(info, "__struct_fields__", ()):
        value = getattr(info, name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, inspect.Type | inspect.Field):
                yield part
