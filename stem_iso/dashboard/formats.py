"""Formats of values for people: durations, sizes, counts, data.

    73.2 ──> 1 m 13 s        12_884_901 ──> 12.3 MiB        0.25 per second ──> 15.0/min        {"a": 1} ──> pretty JSON

Pure. Times of the day are not made here: a page has them in UTC in a `<time>` element, and its script writes them in the reader's zone.
"""

from __future__ import annotations

import json
import re
from typing import Any

NONE = "–"
DAY, HOUR, MINUTE = 86_400, 3600, 60
LONGEST_DATA = 200_000  # characters of one value that a page shows
STRANGE = re.compile(r"[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def duration(seconds: float | None) -> str:
    """Two units at most: `850 µs`, `12 ms`, `1.2 s`, `42 s`, `1 m 13 s`, `2 h`, `3 d 4 h`."""
    if seconds is None:
        return NONE
    if seconds < 0.0995:
        return _short(seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 ", " ")
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return _two(whole // MINUTE, "m", whole % MINUTE, "s")
    if whole < DAY:
        return _two(whole // HOUR, "h", whole % HOUR // MINUTE, "m")
    return _two(whole // DAY, "d", whole % DAY // HOUR, "h")


def _two(number: int, unit: str, rest: int, smaller: str) -> str:
    return f"{count(number)} {unit} {rest} {smaller}" if rest else f"{count(number)} {unit}"


def _short(seconds: float) -> str:
    if seconds <= 0:
        return "0 s"
    if seconds < 0.00095:
        return f"{max(1, round(seconds * 1e6))} µs"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.00995 else f"{round(seconds * 1000)} ms"


def size(octets: float | None) -> str:
    if octets is None:
        return NONE
    amount = float(octets)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 99.5 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:,.1f} TiB"


def count(number: float | None) -> str:
    return NONE if number is None else f"{number:,.0f}"


def rate(per_second: float) -> str:
    """A rate that is seldom is said by the minute."""
    if per_second <= 0:
        return "0/s"
    if per_second < 0.95:
        return f"{per_second * 60:.1f}/min"
    return f"{per_second:,.1f}/s" if per_second < 99.5 else f"{per_second:,.0f}/s"


def share(part: float, whole: float) -> str:
    """A percentage; what is not none is never shown as 0 %."""
    if not part or not whole:
        return "0 %"
    percent = 100 * part / whole
    return "< 0.1 %" if percent < 0.1 else f"{percent:.1f} %" if percent < 9.95 else f"{percent:.0f} %"


def pretty(value: Any) -> str:
    """JSON for people, in lines. What is longer than a page can bear is cut, and says so."""
    written = _data(value, 2)
    if len(written) <= LONGEST_DATA:
        return written
    return f"{written[:LONGEST_DATA]}\n… {count(len(written) - LONGEST_DATA)} more characters; the JSON of /api/tasks has them"


def compact(value: Any, longest: int = 160) -> str:
    """One line: of a map its items as `name=value`."""
    if isinstance(value, dict):
        written = ", ".join(f"{name}={_data(each, None)}" for name, each in value.items())
    else:
        written = _data(value, None)
    return written if len(written) <= longest else f"{written[: longest - 1]}…"


def exact(value: Any) -> str:
    """JSON that can be edited and read back: whole, with what cannot be seen written as escapes."""
    return STRANGE.sub(lambda match: f"\\u{ord(match[0]):04x}", _data(value, 2))


def _data(value: Any, indent: int | None) -> str:
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    except (RecursionError, ValueError):  # nested too deeply, or in a circle
        return "(nested too deeply to be shown)"


def place(written: str) -> tuple[str, str]:
    """Of `/srv/shop/tasks.py:12 in make` the folder `/srv/shop/`, which matters least, and the rest."""
    path, colon, rest = written.rpartition(":")
    head, slash, name = path.rpartition("/")
    return f"{head}{slash}", f"{name}{colon}{rest}"
