"""Durations and sizes as people write them, checked: what every layer that takes an option needs.

    20 · 1.5 · timedelta(minutes=5) ──> seconds        536870912 · "512MiB" · "1.5 GB" ──> bytes

A value that cannot be meant is refused with the field, the value and the way out.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from stem_iso.errors import InvalidOptions

Duration = float | timedelta  # as people give it: seconds, or a timedelta
Size = int | str  # as people give it: bytes, or a number with a unit

# 100 years: past it, sums with the clock leave what a datetime can hold, and nobody means it.
LONGEST = 100 * 365.25 * 86_400.0
UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
LEAST_MEMORY = 1 << 20  # no Python process is smaller: less is a slip of the unit


def duration(name: str, value: Any, least: float = 0.0, strict: bool = True) -> float:
    """Seconds. Raises InvalidOptions."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidOptions(f"{name}: {value!r} is no duration; give seconds or a timedelta")
    if seconds != seconds or seconds > LONGEST:  # not a number, or too large a one
        raise InvalidOptions(f"{name}: {value!r} is longer than any task lives; leave it out for no limit")
    if seconds < least or (strict and seconds == least):
        raise InvalidOptions(f"{name}: {value!r} must be {'above' if strict else 'at least'} {least:g} s")
    return float(seconds)


def optional_duration(name: str, value: Any) -> float | None:
    return None if value is None else duration(name, value)


def size(value: Any) -> int:
    """Bytes: a whole number, or one with a unit ("512MiB", "1.5 GB"). Raises ValueError with the end of a message."""
    written = str(value).strip().lower()
    digits = written.rstrip("bgikm ")
    unit = written[len(digits) :].strip()
    try:
        return int(float(digits) * UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        raise ValueError("must be a size in bytes, such as 536870912 or '512MiB'") from None


def optional_memory(name: str, value: Any) -> int | None:
    """Bytes of a process. Raises InvalidOptions."""
    if value is None:
        return None
    try:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError("must be a size in bytes, such as 536870912 or '512MiB'")
        memory = size(value)
    except ValueError as error:
        raise InvalidOptions(f"{name}: {value!r} {error}") from None
    if not LEAST_MEMORY <= memory < 1 << 63:
        raise InvalidOptions(f"{name}: {value!r} must be at least 1 MiB, in bytes or as '512MiB'")
    return memory


def cores(name: str, value: Any) -> int:
    """A number of cores. Raises InvalidOptions."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 4096:
        raise InvalidOptions(f"{name}: {value!r} must be a whole number, 1 or more")
    return value
