"""Values of columns: each as the type that it should have.

A column of SQLite holds whatever was written into it: another program, a bad disk or a fault of ours can leave a text where a number
belongs, bytes that are no UTF-8, or msgpack that is cut short. A batch reads many rows, so one such value must cost its own row alone:
each of these answers with the value where it fits, and with a stand-in of the right type where it does not. None of them raises.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

LATEST = 253_402_300_800.0  # wall clock: the year 10000, past every datetime
MOST = 2**62  # of counts: one more is still a number of SQLite


def is_text(value: object) -> bool:
    """Whether it is text that can be asked for again: what was no UTF-8 is read with surrogates, which no statement takes."""
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value))


def text(value: Any) -> str:
    """For people: what cannot be read is shown by the replacement character."""
    if value is None:
        return ""
    return data(value).decode(errors="replace")


def optional_text(value: Any) -> str | None:
    return None if value is None else text(value)


def is_count(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= MOST


def count(value: Any) -> int:
    return value if is_count(value) else 0


def seconds(value: Any) -> float | None:
    """A duration; None where there is none, or none that can be meant."""
    return float(value) if isinstance(value, int | float) and 0 <= value < LATEST else None


def moment(value: Any) -> float | None:
    """Wall-clock seconds that a calendar knows."""
    return float(value) if isinstance(value, int | float) and -LATEST < value < LATEST else None


def data(value: Any) -> bytes:
    """The raw bytes of any value."""
    if isinstance(value, bytes):
        return value
    return b"" if value is None else str(value).encode(errors="surrogateescape")


def unpacked(decoder: msgspec.msgpack.Decoder[T], value: Any) -> T | None:
    """None where there is nothing, or nothing that can be read."""
    if not isinstance(value, bytes):
        return None
    try:
        return decoder.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):  # ValueError: text that is no UTF-8
        return None
