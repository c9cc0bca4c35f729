"""Compatibility of two tasks: whether the result of one can be the first argument of the next, as far as annotations say.

    -> int | None ──kinds──> {int, nil} ∩ {int, float} <──kinds── (width: float)

Only what can never work is refused: kinds of data that have nothing in common. What depends on the value is found out by the call itself.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import msgspec

ANYTHING = frozenset({"nil", "bool", "int", "float", "str", "bytes", "list", "map"})

_TEXT = frozenset({"str"})
_SCALARS = {
    "NoneType": frozenset({"nil"}),
    "BoolType": frozenset({"bool"}),
    "IntType": frozenset({"int"}),
    "FloatType": frozenset({"float"}),
    "StrType": _TEXT,
    "BytesType": frozenset({"bytes"}),
    "ByteArrayType": frozenset({"bytes"}),
    "DateType": _TEXT,
    "TimeType": _TEXT,
    "TimeDeltaType": _TEXT,
    "UUIDType": _TEXT,
    "DecimalType": _TEXT,
    "DictType": frozenset({"map"}),
    "TypedDictType": frozenset({"map"}),
    "DataclassType": frozenset({"map"}),
}
_LISTS = frozenset({"ListType", "SetType", "FrozenSetType", "VarTupleType", "TupleType", "NamedTupleType"})
# What a type takes besides what it is written as.
_ALSO = {"FloatType": frozenset({"int"}), "DecimalType": frozenset({"int", "float"}), "UUIDType": frozenset({"bytes"})}


def fits(result: Any, parameter: Any) -> bool:
    """False where no value of type `result` could be converted to `parameter`. Both are annotations; Any where nothing is known."""
    from msgspec import inspect  # 5 ms, and only who composes needs it

    try:
        return _overlap(inspect.type_info(result), inspect.type_info(parameter))
    except Exception:  # an annotation is user code; one that cannot be read is refused elsewhere, with its parameter's name
        return True


def _overlap(given: Any, wanted: Any) -> bool:
    shared = _kinds(given) & (_kinds(wanted) | _ALSO.get(type(wanted).__name__, frozenset()))
    if shared != {"list"}:
        return bool(shared)
    items = getattr(given, "item_type", None), getattr(wanted, "item_type", None)
    return None in items or _overlap(*items)


def _kinds(info: Any) -> frozenset[str]:
    kind = type(info).__name__
    if kind in _SCALARS:
        return _SCALARS[kind]
    if kind in _LISTS:
        return frozenset({"list"})
    if kind == "UnionType":
        return frozenset().union(*(_kinds(each) | _ALSO.get(type(each).__name__, frozenset()) for each in info.types))
    if kind == "EnumType":
        return frozenset().union(*(_kind_of(member.value) for member in info.cls))
    if kind == "LiteralType":
        return frozenset().union(*(_kind_of(value) for value in info.values))
    if kind == "StructType":
        return frozenset({"list" if info.array_like else "map"})
    if kind == "CustomType" and isinstance(info.cls, type) and issubclass(info.cls, PurePath):
        return _TEXT
    return ANYTHING


def _kind_of(value: Any) -> frozenset[str]:
    return _kinds(msgspec.inspect.type_info(type(value)))
