"""Excerpts of tasks: what is shown of results and arguments that are too long to be shown whole.

    record ── result: small ──> the value      larger ──> the first characters of its text, or of its JSON, and "…"      huge ──> its size
           ── arguments, by name ─────────────> the same for each, as long as the room lasts

Rules
 1. A list of a thousand tasks with results of megabytes costs the room of one: each is cut before the next is looked at, and what is huge
    is never decoded, unless it is a plain text. Values take up to some sixty times their encoded size in memory.
 2. What is cut is said by name: it is a text then, whatever the value was. `handle.status()` has all of it.
 3. Redacted arguments are redacted before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from stem_iso.client.result import status_of
from stem_iso.errors import StemError
from stem_iso.json_data import to_json

if TYPE_CHECKING:
    from stem_iso.brokers.base import StatusRecord
    from stem_iso.client.application import Application
    from stem_iso.outcome import TaskStatus

MOST_NAMES = 100  # arguments of one task


@dataclass(frozen=True, slots=True)
class Room:
    """`shown`: characters of a result, and of all arguments together; `decoded`: bytes, of what is larger only the size is shown."""

    shown: int
    decoded: int
    args: bool = True  # whether arguments are cut too: whole ones can be edited


LISTED = Room(shown=2048, decoded=256 << 10)
ALONE = Room(shown=1 << 20, decoded=1 << 20, args=False)


class Excerpt(NamedTuple):
    """`cut`: which of `result` and `args` are not whole."""

    status: TaskStatus
    cut: list[str]


def excerpt(app: Application, record: StatusRecord, room: Room) -> Excerpt:
    """Of a result that cannot be read nothing is shown."""
    result, args, cut = record.result, record.args, []
    huge = result is not None and len(result) > room.decoded
    huge_args = room.args and args is not None and len(args) > room.decoded
    shown = None if huge_args else app.shown_arguments(record.name, args)
    status = _status(app, msgspec.structs.replace(record, result=None if huge else result, args=None), shown)
    if result is not None and len(result) > room.shown:
        value, is_cut = (_of_huge(result, room.shown), True) if huge else shortened(status.result, room.shown)
        status = msgspec.structs.replace(status, result=value)
        cut += ["result"] * is_cut
    if huge_args and args is not None and record.name in app.registry:
        status = msgspec.structs.replace(status, args={"…": _size(args)})
        cut.append("args")
    elif room.args and shown is not None and args is not None and len(args) > room.shown:
        values, is_cut = shortened_arguments(shown, room.shown)
        status = msgspec.structs.replace(status, args=values)
        cut += ["args"] * is_cut
    return Excerpt(status, cut)


def _status(app: Application, record: StatusRecord, args: dict[str, Any] | None) -> TaskStatus:
    try:
        return status_of(record, app.result_converter(record.name), args)
    except StemError:
        return status_of(msgspec.structs.replace(record, result=None), None, args)


def shortened(value: Any, most: int) -> tuple[Any, bool]:
    """The value where its JSON has no more than `most` characters, else so many of them, and whether they were cut."""
    written = _written(value)
    return (value, False) if len(written) <= most else (f"{written[:most]}…", True)


def shortened_arguments(args: Mapping[str, Any], most: int) -> tuple[dict[str, Any], bool]:
    """Each as long as the room lasts."""
    shown: dict[str, Any] = {}
    left, is_cut = most, False
    for name, value in args.items():
        if len(shown) == MOST_NAMES:
            shown["…"] = f"{len(args) - MOST_NAMES} more"
            return shown, True
        shown[name], this_is_cut = shortened(value, left)
        is_cut = is_cut or this_is_cut
        left = max(0, left - len(_written(value)))
    return shown, is_cut


def _written(value: Any) -> str:
    try:
        return value if isinstance(value, str) else to_json(value).decode()
    except RecursionError:
        return "(nested too deeply to be shown)"


def _of_huge(encoded: bytes, most: int) -> str:
    # A text stands as it is behind a head of five bytes: its beginning is had without the rest.
    if encoded[0] == 0xDB:
        return f"{encoded[5 : 5 + 4 * most].decode(errors='ignore')[:most]}…"
    return _size(encoded)


def _size(encoded: bytes) -> str:
    return f"… {len(encoded):,} bytes"
