"""Values as JSON for programs and as text for people.

JSON has the Python names; enums are their values, tuples lists, bytes base64, datetimes ISO 8601. What JSON has no form for, such as a map
with keys that are no texts, is written as text rather than refused: somebody is looking for a fault. What is for people goes through
`printable`: names and messages are anybody's.
"""

from __future__ import annotations

import base64
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import click
import msgspec

from stem_iso.client.result import datetime_of
from stem_iso.errors import StemError
from stem_iso.printable import lines, one_line


def to_json(value: Any) -> str:
    """One line of JSON."""
    try:
        return msgspec.json.encode(value, enc_hook=str).decode()
    except (TypeError, ValueError, RecursionError):
        pass
    try:
        return msgspec.json.encode(_plain(value)).decode()
    except RecursionError:
        raise StemError("what is stored there is nested too deeply to be shown") from None


def _plain(value: Any) -> Any:
    builtin = msgspec.to_builtins(value, builtin_types=(bytes, datetime), enc_hook=str, str_keys=False)
    return _keyed(builtin)


def _keyed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): _keyed(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list | tuple | set | frozenset):
        return [_keyed(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    return value


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


def seconds(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as they must be; numbers to the right."""
    body = [[one_line(str(cell)) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(head), *body]) for column in range(len(head))]
    numeric = [bool(body) and all(row[column].isdigit() for row in body) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(cells, widths, numeric, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([line(head), *(line(row) for row in body)])


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
            shown.append(f"{name + ':':<{indent}}{one_line(written)}")
    return "\n".join(shown)
