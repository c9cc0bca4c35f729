"""Values as JSON for programs and as text for people.

JSON has the Python names; `stem_iso.json_data` says what becomes of values. What is for people goes through `printable`: names and messages
are anybody's.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from stem_iso import json_data
from stem_iso.cli import table as layout
from stem_iso.client.result import datetime_of
from stem_iso.errors import StemError
from stem_iso.printable import lines, one_line

# Of a task and of a schedule.
STATE_TONES = {
    "succeeded": "green",
    "active": "green",
    "running": "cyan",
    "cancelled": "yellow",
    "paused": "yellow",
    "failed": "red",
    "late": "red",
}


def to_json(value: Any) -> str:
    """One line of JSON."""
    try:
        return json_data.to_json(value).decode()
    except RecursionError:
        raise StemError("what is stored there is nested too deeply to be shown") from None


def print_json(value: Any) -> None:
    click.echo(to_json(value))


def as_text(value: Any) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else to_json(value)


def print_text(text: str) -> None:
    """For the eyes, where stdout is a terminal: no control character reaches it. A file or a program gets the text as it is."""
    click.echo(lines(text, "") if sys.stdout.isatty() else text)


def moment(seconds: float | None) -> datetime | None:
    """None where no calendar knows it."""
    return datetime_of(seconds)


def clock(at: datetime | float | None) -> str:
    """Local time, to the second."""
    known = datetime_of(at) if isinstance(at, float | int) else at
    try:
        return "-" if known is None else known.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):  # the last hours of the calendar, in another zone
        return "-"


def clock_of_today(at: datetime | None) -> str:
    """As `clock`, without the date where it is today's: for tables."""
    whole = clock(at)
    return whole.partition(" ")[2] if whole.partition(" ")[0] == datetime.now().strftime("%Y-%m-%d") else whole


def seconds(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def colour() -> bool:
    """Whether stdout is a terminal that takes colour, and nobody asked for none (NO_COLOR, https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], tones: Mapping[str, layout.Tone] | None = None) -> str:
    """Fitted to the terminal, where stdout is one; a file or a program gets all of it. `tones`: colours by the head of a column."""
    body = [[one_line(str(cell)) for cell in row] for row in rows]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return layout.table(head, body, width=width, colour=colour(), tones=tones)


def state_tone(state: str) -> str | None:
    """By its first word."""
    return STATE_TONES.get(state.partition(" ")[0])


def pairs(rows: Iterable[tuple[str, object]]) -> str:
    """One thing, a line for each of its fields that is set; a text of several lines is set below its name."""
    shown: list[str] = []
    found = [(name, value) for name, value in rows if not (value is None or value == "" or value == {})]
    indent = max([13, *(len(name) + 2 for name, _ in found)])
    for name, value in found:
        written = as_text(value).rstrip()
        if "\n" in written:
            shown.append(f"{name}:\n    {lines(written)}")
        else:
            field = one_line(written)
            tone = state_tone(field) if name == "state" and colour() else None
            shown.append(f"{name + ':':<{indent}}{click.style(field, fg=tone) if tone else field}")
    return "\n".join(shown)
