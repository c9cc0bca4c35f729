"""Checks of single values: what every layer that takes an option from a person needs.

    20 · 1.5 · timedelta(minutes=5)  ── duration ──> seconds
    536870912 · "512MiB" · "1.5 GB"  ── size ──────> bytes
    3, but neither True nor 3.0      ── whole ─────> int

Rules
 1. A check takes a field's name and the value given. It returns the value to keep, or raises InvalidOptions, which names the field, the
    value and the way out.
 2. A check knows no table: which option has which check stands where the option is declared (`task/options.py`, `config.py`).
 3. The module is cheap to import: every isolate imports it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from math import inf
from typing import Any, TypeGuard

from stem_iso.errors import InvalidOptions

Duration = float | timedelta  # as people give it: seconds, or a timedelta
Size = int | str  # as people give it: bytes, or a number with a unit

# 100 years: past it, sums with the clock leave what a datetime can hold, and nobody means it.
LONGEST = 100 * 365.25 * 86_400.0
UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
NO_SIZE = "must be a size in bytes, such as 536870912 or '512MiB'"
LEAST_MEMORY = 1 << 20  # no Python process is smaller: less is a slip of the unit


def did_you_mean(word: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """The end of a message: the known word that is nearest; where none is near `otherwise`, by default a list of all."""
    import difflib  # only people who mistype pay for it

    choices = sorted(known)
    if near := difflib.get_close_matches(word, choices, n=1):
        return f"; did you mean {near[0]!r}?"
    if otherwise is not None:
        return otherwise
    return f"; known are {', '.join(choices)}" if choices else ""


# -- numbers ---------------------------------------------------------------------------------------------------------------------------


def is_number(value: object) -> TypeGuard[int | float]:
    """True is 1 to Python, and a slip wherever a number is meant."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: object) -> TypeGuard[int]:
    return is_number(value) and isinstance(value, int)


def whole(name: str, value: object, least: int, most: float = inf, meant: str | None = None) -> int:
    """`meant` is what an error says of the range, by default only `least`."""
    if not is_whole(value) or not least <= value <= most:
        raise InvalidOptions(f"{name}: {value!r} must be a whole number{f', {least} or more' if meant is None else meant}")
    return value


def count(name: str, value: object) -> int:
    return whole(name, value, 0, 2**31 - 1)


def cores(name: str, value: object) -> int:
    return whole(name, value, 1, 4096)


def priority(name: str, value: object) -> int:
    return whole(name, value, 0, 9, " from 0 to 9 (9 is served first)")


# -- times -----------------------------------------------------------------------------------------------------------------------------


def duration(name: str, value: Any, least: float = 0.0, strict: bool = True) -> float:
    """Seconds."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not is_number(seconds):
        raise InvalidOptions(f"{name}: {value!r} is no duration; give seconds or a timedelta")
    if seconds != seconds or seconds > LONGEST:  # not a number, or too large a one
        raise InvalidOptions(f"{name}: {value!r} is longer than any task lives; leave it out for no limit")
    if seconds < least or (strict and seconds == least):
        raise InvalidOptions(f"{name}: {value!r} must be {'above' if strict else 'at least'} {least:g} s")
    return float(seconds)


def optional_duration(name: str, value: Any) -> float | None:
    return None if value is None else duration(name, value)


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


# -- sizes -----------------------------------------------------------------------------------------------------------------------------


def size(value: Any) -> int:
    """Bytes: a whole number, or one with a unit ("512MiB", "1.5 GB"). Raises ValueError with the end of a message."""
    written = str(value).strip().lower()
    digits = written.rstrip("bgikm ")
    unit = written[len(digits) :].strip()
    try:
        return int(float(digits) * UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        raise ValueError(NO_SIZE) from None


def optional_memory(name: str, value: Any) -> int | None:
    """Bytes of a process."""
    if value is None:
        return None
    try:
        if not is_whole(value) and not isinstance(value, str):
            raise ValueError(NO_SIZE)
        memory = size(value)
    except ValueError as error:
        raise InvalidOptions(f"{name}: {value!r} {error}") from None
    if not LEAST_MEMORY <= memory < 1 << 63:
        raise InvalidOptions(f"{name}: {value!r} must be at least 1 MiB, in bytes or as '512MiB'")
    return memory


# -- words -----------------------------------------------------------------------------------------------------------------------------


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidOptions(f"{name}: {value!r} must be True or False")
    return value


def text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise InvalidOptions(f"{name}: {value!r} must be a non-empty string of printable characters")
    return value


def optional_text(name: str, value: Any) -> str | None:
    return None if value is None else text(name, value)


def queue(name: str, value: Any) -> str:
    # A comma separates queues on the command line; blanks at the ends are always a slip.
    if "," in text(name, value) or value != value.strip():
        raise InvalidOptions(f"{name}: {value!r} must have no comma, and no blank at its ends")
    return str(value)
