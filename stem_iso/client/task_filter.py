"""Filter of tasks, as people give it, checked; what the store cannot match is matched here.

    state, queue, name, since, until ──> TaskFilter ──> the store
    text ─────────────────────────────> matches(arguments as they are shown)

Rules
 1. `text` is sought in the arguments as people see them, never in what is stored: for each argument in `name=value`, where the value is
    compact JSON, and a text also stands without its quotes and escapes. Case does not count.
 2. An argument that is shown as "***" is passed over whole. A task whose code is not here shows no arguments, and so matches no text.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypedDict

from stem_iso.brokers.operations import LISTED_STATES, TaskFilter
from stem_iso.errors import InvalidOptions
from stem_iso.json_data import to_json
from stem_iso.task.arguments import REDACTED
from stem_iso.validation import did_you_mean, duration, optional_text


class FilterFields(TypedDict, total=False):
    """The keywords of `app.list_tasks` and `app.bulk` that choose tasks. All that are given must match.

    `state`: "queued" (ready now), "delayed" (due later), or a state of `TaskState`, or several of these; `name`: a shell pattern
    ("thumbs.*"); `text`: a part of an argument as it is shown, in any case of its letters; `since`, `until`: when it was enqueued, as an
    aware datetime, or a timedelta back from now.
    """

    state: str | Collection[str] | None
    queue: str | None
    name: str | None
    text: str | None
    since: datetime | timedelta | None
    until: datetime | timedelta | None


@dataclass(frozen=True, slots=True)
class CheckedFilter:
    """`stored` is for the store; `text`, in lower case, for `matches`."""

    stored: TaskFilter
    text: str | None = None

    @property
    def chooses(self) -> bool:
        """Whether anything is asked for, so that not simply all are meant."""
        return self.text is not None or self.stored != TaskFilter()

    def matches(self, args: Mapping[str, Any] | None) -> bool:
        """`args` as people are shown them."""
        if self.text is None:
            return True
        return args is not None and any(self.text in shown for shown in _texts(args))


def checked(given: Mapping[str, Any], now: float) -> CheckedFilter:
    """`now`: wall clock. Raises InvalidOptions, with the name of the field."""
    if unknown := given.keys() - FilterFields.__annotations__.keys():
        field = min(unknown)
        raise InvalidOptions(f"{field}: tasks are not chosen by that{did_you_mean(field, FilterFields.__annotations__)}")
    since, until = (_moment(name, given.get(name), now) for name in ("since", "until"))
    if since is not None and until is not None and since > until:
        raise InvalidOptions("since: it is later than until; nothing can be in between")
    stored = TaskFilter(
        states=_states(given.get("state")),
        queue=optional_text("queue", given.get("queue")),
        name=optional_text("name", given.get("name")),
        since=since,
        until=until,
    )
    return CheckedFilter(stored, _sought("text", given.get("text")))


def in_words(given: Mapping[str, Any]) -> str:
    """For the list of actions: `state=failed name=thumbs.*`."""
    words = {name: _word(given[name]) for name in FilterFields.__annotations__ if given.get(name) is not None}
    return " ".join(f"{name}={word}" for name, word in words.items()) or "all"


def _word(value: Any) -> str:
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, datetime):
        return value.isoformat()
    return value if isinstance(value, str) else ",".join(sorted(value))


def _sought(name: str, value: Any) -> str | None:
    """Any text but an empty one: it is compared, and named nowhere."""
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise InvalidOptions(f"{name}: {value!r} must be a part of an argument; leave it out for all tasks")
    return value.casefold()


def _states(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    given = [value] if isinstance(value, str) else list(value) if isinstance(value, Collection) else [value]
    for state in given:
        if state not in LISTED_STATES:
            meant = did_you_mean(state, LISTED_STATES) if isinstance(state, str) else f"; known are {', '.join(LISTED_STATES)}"
            raise InvalidOptions(f"state: {state!r} is none{meant}")
    if not given:
        raise InvalidOptions("state: of no states there is nothing; leave it out for all")
    return tuple(sorted({str(state) for state in given}))


def _moment(name: str, value: Any, now: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, timedelta):
        return now - duration(name, value, strict=False)
    if not isinstance(value, datetime):
        raise InvalidOptions(f"{name}: {value!r} must be a datetime with a zone, or a timedelta back from now")
    if value.utcoffset() is None:
        raise InvalidOptions(f"{name}: {value!r} has no zone; write datetime.now(UTC), or .astimezone() where local time is meant")
    return value.timestamp()


def _texts(args: Mapping[str, Any]) -> list[str]:
    texts = []
    for name, value in args.items():
        if value == REDACTED:
            continue
        if isinstance(value, Mapping):  # of **kwargs some may be redacted
            value = {key: each for key, each in value.items() if each != REDACTED}
        try:
            texts.append(f"{name}={to_json(value).decode()}".casefold())
        except RecursionError:  # nested too deeply to be shown, so nobody sees it
            continue
        if isinstance(value, str):
            texts.append(f"{name}={value}".casefold())
    return texts
