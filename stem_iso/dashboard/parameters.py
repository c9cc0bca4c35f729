"""Parameters of requests, checked: what stands in a query, a path or a body becomes values, or InvalidOptions that names the field.

    ?state=failed&since=10m&limit=50 ── read(query, LIST_TASKS) ──> {"state": ["failed"], "since": timedelta(...), "limit": 50}
    {"action": "retry", "name": "thumbs.*"} ── read_body(body, BULK) ──> the same for a body

Rules
 1. One table row for each parameter: its check, and its part of the OpenAPI document. What is not in the table is refused, by name.
 2. An empty value in a query is as if it were not there: that is what a form sends for a field that was left empty.
 3. Nothing here is trusted to be short, printable, or text at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import msgspec

from stem_iso.brokers.operations import LISTED_STATES, MOST_ACTIONS
from stem_iso.client.bulk import BULK_ACTIONS
from stem_iso.client.task_filter import FilterFields
from stem_iso.client.task_stats import MOST_MINUTES
from stem_iso.client.worker_control import ACTIONS
from stem_iso.errors import InvalidOptions
from stem_iso.validation import did_you_mean

LONGEST_TEXT = 1000  # characters of a name, an id, a filter
LONGEST_CURSOR = 4000
MOST_RUNS = 2**31 - 1
HALF_SURROGATE = re.compile("[\ud800-\udfff]")
AGO = re.compile(r"(?:(\d{1,5})d)?(?:(\d{1,7})h)?(?:(\d{1,8})m)?(?:(\d{1,9})s)?", re.ASCII)

Check = Callable[[str, Any], Any]  # the field's name, what was given; raises InvalidOptions
Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Parameter:
    """`schema`: JSON Schema of what may be given. `many`: it may stand in a query more than once, and is a list."""

    name: str
    check: Check
    schema: Schema
    meaning: str
    required: bool = False
    many: bool = False


# -- checks: each takes what a query or a body has -----------------------------------------------------------------------------------


def word(name: str, value: Any) -> str:
    """A name, an id, a pattern."""
    if not isinstance(value, str) or not value or len(value) > LONGEST_TEXT or HALF_SURROGATE.search(value):
        raise InvalidOptions(f"{name}: {_shown(value)} must be a text of 1 to {LONGEST_TEXT} characters")
    return value


def cursor(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > LONGEST_CURSOR or HALF_SURROGATE.search(value):
        raise InvalidOptions(f"{name}: {_shown(value)} is none; give that of the page before")
    return value


def states(name: str, value: Any) -> list[str]:
    """One, or several with commas between them, or a list."""
    given = value if isinstance(value, list) else [value]
    found = [part.strip() for each in given for part in word(name, each).split(",")]
    return [one_of(name, part, LISTED_STATES) for part in found]


def one_of(name: str, value: Any, known: Sequence[str]) -> str:
    if value not in known:
        meant = did_you_mean(value, known) if isinstance(value, str) and len(value) < 100 else f"; known are {', '.join(known)}"
        raise InvalidOptions(f"{name}: {_shown(value)} is none{meant}")
    return str(value)


def moment(name: str, value: Any) -> datetime | timedelta:
    """`10m` and `1h30m` are so long ago; else ISO 8601, in UTC where it names no zone."""
    written = word(name, value)
    if ago := AGO.fullmatch(written.strip()):
        days, hours, minutes, seconds = (int(part or 0) for part in ago.groups())
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    try:
        # In a query an unescaped + is a blank.
        at = datetime.fromisoformat(re.sub(r" (\d\d:?\d\d)$", r"+\1", written.strip()))
        at = at.replace(tzinfo=UTC) if at.utcoffset() is None else at
        return datetime.fromtimestamp(at.timestamp(), UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidOptions(f"{name}: {_shown(value)} is no time; write 10m, 2h, 1d, or 2026-01-31T08:00:00Z") from None


def whole_from(least: int, most: int) -> Check:
    def check(name: str, value: Any) -> int:
        number = int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value) else value
        if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
            raise InvalidOptions(f"{name}: {_shown(value)} must be a whole number from {least} to {most}")
        return number

    return check


def truth(name: str, value: Any) -> bool:
    given = value.lower() if isinstance(value, str) else value
    if given in ("1", "true", "yes", "on") or given is True:
        return True
    if given in ("0", "false", "no", "off") or given is False:
        return False
    raise InvalidOptions(f"{name}: {_shown(value)} must be true or false")


def order(name: str, value: Any) -> str:
    return one_of(name, value, ("newest", "oldest"))


def arguments(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidOptions(f"{name}: {_shown(value)} must be an object: the arguments by the names of the parameters")
    _refuse_half_surrogates(name, value)
    return value


def anything(name: str, value: Any) -> Any:
    """The action knows what it takes."""
    if isinstance(value, str):
        return word(name, value)
    return value


def _refuse_half_surrogates(name: str, value: Any) -> None:
    try:
        msgspec.msgpack.encode(value)
    except (UnicodeEncodeError, ValueError, OverflowError, RecursionError, TypeError) as error:
        raise InvalidOptions(f"{name}: cannot be sent: {error}") from None


def _shown(value: Any) -> str:
    """Of what was given, as much as an error needs; `ascii` has no half surrogates and no control characters."""
    written = ascii(value) if isinstance(value, str | int | float | bool | None) else f"a {type(value).__name__}"
    return written if len(written) <= 100 else written[:99] + "…"


# -- tables ------------------------------------------------------------------------------------------------------------------------------

TEXT: Schema = {"type": "string", "minLength": 1, "maxLength": LONGEST_TEXT}


def _whole(least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


FILTERS = (
    Parameter("state", states, {"type": "string", "enum": list(LISTED_STATES)}, "its state; several with commas between them", many=True),
    Parameter("queue", word, TEXT, "the queue, as it is"),
    Parameter("name", word, TEXT, "the task's name, or a shell pattern such as thumbs.*"),
    Parameter("text", word, TEXT, "a part of an argument as it is shown; never of a redacted one"),
    Parameter("since", moment, TEXT, "enqueued at or after: 10m (ago), or ISO 8601"),
    Parameter("until", moment, TEXT, "enqueued at or before"),
)
LIST_TASKS = (
    *FILTERS,
    Parameter("limit", whole_from(1, 1000), {**_whole(1, 1000), "default": 100}, "tasks of a page"),
    Parameter("cursor", cursor, {"type": "string", "minLength": 1, "maxLength": LONGEST_CURSOR}, "of the page before"),
    Parameter("order", order, {"type": "string", "enum": ["newest", "oldest"], "default": "newest"}, "which come first"),
)
FAILURES = tuple(each for each in FILTERS if each.name != "state")
STATS = (
    Parameter("name", word, TEXT, "the task; without it all"),
    Parameter("queue", word, TEXT, "of this queue alone"),
    Parameter("minutes", whole_from(1, MOST_MINUTES), {**_whole(1, MOST_MINUTES), "default": 60}, "how many of the last minutes"),
)
LIST_ACTIONS = (Parameter("limit", whole_from(1, MOST_ACTIONS), {**_whole(1, MOST_ACTIONS), "default": 100}, "how many of the newest"),)
EVENTS = (Parameter("task", word, TEXT, "events of this task alone"),)
TASK_NAME = (Parameter("name", word, TEXT, "the task's name", required=True),)
BULK = (
    Parameter("action", lambda name, value: one_of(name, value, BULK_ACTIONS), {"type": "string", "enum": list(BULK_ACTIONS)}, "", True),
    *FILTERS,
    Parameter("dry_run", truth, {"type": "boolean", "default": False}, "only count what matches"),
    Parameter("all", truth, {"type": "boolean", "default": False}, "every task is meant where no filter is given"),
)
CONTROL = (
    Parameter("action", lambda name, value: one_of(name, value, ACTIONS), {"type": "string", "enum": list(ACTIONS)}, "", True),
    Parameter("value", anything, {"type": ["integer", "string", "null"]}, "a number of seats, a log level, the pid of an isolate"),
)
EDIT = (
    Parameter("args", arguments, {"type": "object"}, "all arguments, by name; *** keeps the value that one has", True),
    Parameter("run", whole_from(0, MOST_RUNS), _whole(0, MOST_RUNS), "the run that was seen; refused where it is another by now"),
)
NOTHING: tuple[Parameter, ...] = ()


def read(query: Iterable[tuple[str, str]], table: Sequence[Parameter]) -> dict[str, Any]:
    """Of a query: pairs, as they came. Raises InvalidOptions."""
    given: dict[str, Any] = {}
    known = {each.name: each for each in table}
    for name, value in query:
        if name not in known:
            raise InvalidOptions(_unknown(name, known))
        if value == "":
            continue
        if known[name].many:
            given.setdefault(name, []).append(value)
        elif name in given:
            raise InvalidOptions(f"{name}: is given twice")
        else:
            given[name] = value
    return _checked(given, table)


def read_body(body: bytes, table: Sequence[Parameter]) -> dict[str, Any]:
    """Of a JSON object; no body is an empty one. None is as if it were not there. Raises InvalidOptions."""
    try:
        value = msgspec.json.decode(body) if body.strip() else {}
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidOptions(f"body: is no JSON: {ascii(str(error))[1:-1][:200]}") from None
    if not isinstance(value, dict):
        raise InvalidOptions(f"body: {_shown(value)} must be a JSON object")
    known = {each.name: each for each in table}
    if strange := next((name for name in value if name not in known), None):
        raise InvalidOptions(_unknown(strange, known))
    if "" in value:
        raise InvalidOptions(_unknown("", known))
    return _checked({name: each for name, each in value.items() if each is not None}, table)


def _checked(given: Mapping[str, Any], table: Sequence[Parameter]) -> dict[str, Any]:
    if missing := next((each.name for each in table if each.required and each.name not in given), None):
        raise InvalidOptions(f"{missing}: is missing")
    return {each.name: each.check(each.name, given[each.name]) for each in table if each.name in given}


def _unknown(name: str, known: Mapping[str, Parameter]) -> str:
    if not known:
        return f"{_shown(name)[1:-1]}: is unknown; nothing is asked for here"
    return f"{_shown(name)[1:-1]}: is unknown{did_you_mean(name[:100], known)}"


def task_filter(given: Mapping[str, Any]) -> FilterFields:
    """Of what `read` found, the part that chooses tasks."""
    return cast("FilterFields", {name: given[name] for name in FilterFields.__annotations__ if name in given})
