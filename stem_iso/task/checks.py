"""Checks of single options: each takes a field's name and the value given, and returns the value to keep or raises InvalidOptions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from stem_iso.errors import InvalidOptions
from stem_iso.units import LONGEST as LONGEST
from stem_iso.units import Duration as Duration
from stem_iso.units import Size as Size
from stem_iso.units import cores as cores
from stem_iso.units import duration as duration
from stem_iso.units import optional_duration as optional_duration
from stem_iso.units import optional_memory as optional_memory


def checked(given: Mapping[str, Any], checks: Mapping[str, Callable[[str, Any], Any]]) -> dict[str, Any]:
    """What was given, each value checked and normalised."""
    for name in given:
        if name not in checks:
            raise InvalidOptions(f"unknown option {name!r}{did_you_mean(name, checks)}")
    return {name: checks[name](name, value) for name, value in given.items()}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    import difflib  # only people who mistype pay for it

    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(choices)}" if choices else ""


def delay(name: str, value: Any) -> float:
    return duration(name, value, strict=False)


def instant(name: str, value: Any) -> float:
    """Wall-clock seconds. A naive datetime is local time, as everywhere in Python."""
    if not isinstance(value, datetime):
        raise InvalidOptions(f"{name}: {value!r} is no datetime")
    try:
        return value.timestamp()
    except (OverflowError, OSError, ValueError) as error:
        raise InvalidOptions(f"{name}: {value!r} is out of range ({error})") from None


def count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise InvalidOptions(f"{name}: {value!r} must be a whole number, 0 or more")
    return value


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidOptions(f"{name}: {value!r} must be True or False")
    return value


def priority(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 9:
        raise InvalidOptions(f"{name}: {value!r} must be a whole number from 0 to 9 (9 is served first)")
    return value


def text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise InvalidOptions(f"{name}: {value!r} must be a non-empty string of printable characters")
    return value


def queue(name: str, value: Any) -> str:
    # A comma separates queues on the command line; blanks at the ends are always a slip.
    if "," in text(name, value) or value != value.strip():
        raise InvalidOptions(f"{name}: {value!r} must have no comma, and no blank at its ends")
    return str(value)


def soft_limit_action(name: str, value: Any) -> str:
    if value not in ("event", "raise"):
        raise InvalidOptions(f"{name}: {value!r} must be 'event' or 'raise'")
    return str(value)


def mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidOptions(f"{name}: {value!r} must be a mapping whose keys are strings")
    for key, item in value.items():
        try:
            msgspec.msgpack.encode(item)  # as the envelope does it, and where the key can still be named
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidOptions(f"{name}: {key!r} is {item!r}, which cannot be sent ({error}); give plain data") from None
    return dict(value)
