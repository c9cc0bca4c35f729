"""Figures as short text: durations, sizes, counts, cores, bars.

91.4 ──> 1m31s        537 MB of memory ──> 512 MiB        [0, 1, 2, 5] ──> 0-2,5        0.4, mark at 0.5 ──> ━━━━─┃────
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime

MANY = 10_000  # from here on a count is shortened
FULL, HALF, EMPTY, MARK = "━", "╸", "─", "┃"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def duration(seconds: float | None) -> str:
    """At most six characters for up to 99 days: `0.4s`, `12s`, `3m05s`, `2h07m`, `4d03h`."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    minutes = whole // 60
    if minutes < 24 * 60:
        return f"{minutes // 60}h{minutes % 60:02}m"
    hours = minutes // 60
    return f"{hours // 24}d{hours % 24:02}h"


def limit(seconds: float | None) -> str:
    """A limit as its owner wrote it, where that is short: `0.4s`, `30s`, `5m`."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.3g}s"
    return duration(seconds).replace("m00s", "m").replace("h00m", "h")


def clock(at: float) -> str:
    """Time of day, where we are."""
    return moment(at)[11:] or "-"


def moment(at: float) -> str:
    try:
        return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):  # no calendar knows it
        return "-"


def size(count: int | None) -> str:
    """Bytes: three digits that count, and a unit."""
    if count is None:
        return "-"
    value, power = float(max(0, count)), 0
    while value >= 999.5 and power < len(UNITS) - 1:
        value, power = value / 1024, power + 1
    return f"{value:.0f} {UNITS[power]}" if power == 0 or value >= 9.95 else f"{value:.1f} {UNITS[power]}"


def size_against(used: int | None, limit: int | None) -> str:
    """`120/512 MiB`, both in the unit of the limit."""
    if used is None or not limit:
        return size(used)
    whole, unit = size(limit).split(" ")
    value = max(0, used) / 1024.0 ** UNITS.index(unit)
    return f"{value:.0f}/{whole} {unit}" if value >= 9.95 or value == 0 else f"{value:.1f}/{whole} {unit}"


def count(number: int) -> str:
    """Whole below 10,000; above that three digits that count: `12.3k`, `1.20M`."""
    if number < MANY:
        return str(number)
    for unit, power in (("k", 1e3), ("M", 1e6), ("G", 1e9)):
        value = number / power
        if value < 999.5:
            return f"{value:.2f}{unit}" if value < 9.995 else f"{value:.1f}{unit}" if value < 99.95 else f"{value:.0f}{unit}"
    return f"{number:.1e}"


def rate(per_second: float) -> str:
    """`0` for none at all; what is rare is shown by the minute, so that it does not look like nothing."""
    if per_second <= 0:
        return "0"
    if per_second < 0.095:
        return f"{per_second * 60:.1f}/min"
    return f"{per_second:.1f}/s" if per_second < 99.95 else f"{count(round(per_second))}/s"


def cores(numbers: Iterable[int]) -> str:
    """`0-2,5`."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def bar(share: float, width: int, mark: float | None = None) -> str:
    """`width` cells, of which `share` (0 to 1) is drawn strong, to half a cell; `mark` is a place on it. What is not nothing shows, and
    what is not all leaves room."""
    halves = round(min(max(share, 0.0), 1.0) * width * 2)
    if share > 0:
        halves = max(halves, 1)
    if share < 1:
        halves = min(halves, 2 * width - 1)
    cells = list(FULL * (halves // 2) + HALF * (halves % 2))
    cells += EMPTY * (width - len(cells))
    if mark is not None and 0 <= mark <= 1 and width:
        cells[min(int(mark * width), width - 1)] = MARK
    return "".join(cells[:width])
