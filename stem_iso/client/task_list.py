"""List of tasks, a page at a time.

    page ── step ──> broker.list_tasks(after) ── matches? ──> tasks …     until the page is full or large, the end, or a second has passed
      └── cursor ──> the next page goes on behind the last task that was looked at

Each step of the store is bounded, so a page of a rare text may be short, or even empty, and still have a cursor: it says how far the store
was looked at. Only a page without a cursor is the last.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from stem_iso.client.result import status_of
from stem_iso.client.task_excerpt import Room, excerpt
from stem_iso.client.task_filter import CheckedFilter
from stem_iso.errors import InvalidOptions, StemError
from stem_iso.outcome import TaskStatus
from stem_iso.validation import flag, whole

if TYPE_CHECKING:
    from stem_iso.brokers.base import Broker, StatusRecord
    from stem_iso.brokers.operations import ListedTask
    from stem_iso.client.application import Application

LONGEST_LOOK = 1.0  # seconds after which a page is answered as it is
LARGEST_PAGE = 16 << 20  # bytes of arguments and results, past which it is too: a thousand tasks may bring a thousand megabytes
ATTEMPT = 500  # bytes of an attempt before, roughly
MOST_A_STEP = 250  # tasks: each may bring arguments of a megabyte


class TaskPage(msgspec.Struct, frozen=True):
    """Tasks in the order of the list. `cursor` asks for the next page; None: there is none. A page may have fewer tasks than were asked
    for, and none, and still a cursor. `cut`: by id, which of `result` and `args` are not whole; none, where excerpts were not asked for."""

    tasks: list[TaskStatus]
    cursor: str | None = None
    cut: dict[str, list[str]] = {}


def page(
    app: Application,
    which: CheckedFilter,
    limit: int,
    cursor: str | None,
    newest_first: bool,
    look: float | None = None,
    room: Room | None = None,
) -> TaskPage:
    """`look`: seconds, instead of LONGEST_LOOK; `room`: for excerpts instead of whole tasks. Raises InvalidOptions for a limit outside 1 to
    1,000, and for a cursor that is none."""
    whole("limit", limit, 1, 1000, " from 1 to 1000")
    flag("newest_first", newest_first)
    found: list[TaskStatus] = []
    cut: dict[str, list[str]] = {}
    stop_at, size = time.monotonic() + (LONGEST_LOOK if look is None else look), 0
    for matched, position in steps(app, which, limit, cursor, newest_first):
        for place, task in enumerate(matched):
            if room is None:
                found.append(listed_status(app, task.record))
                size += len(task.record.args or b"") + len(task.record.result or b"") + ATTEMPT * len(task.record.attempts)
            else:
                status, names = excerpt(app, task.record, room)
                found.append(status)
                cut |= {status.id: names} if names else {}
            if len(found) == limit or size > LARGEST_PAGE:
                more = place + 1 < len(matched) or position is not None
                return TaskPage(found, task.position if more else None, cut)
        cursor = position
        if time.monotonic() >= stop_at:
            break
    return TaskPage(found, cursor, cut)


def steps(
    app: Application, which: CheckedFilter, limit: int, after: str | None, newest_first: bool
) -> Iterator[tuple[list[ListedTask], str | None]]:
    """The tasks of each step that match, and where the next step begins, None at the end. A broker is held only while it is asked."""
    size = limit if which.text is None else MOST_A_STEP  # one of a rare text is not sought one by one
    while True:
        with app.broker_pool.borrow() as broker:
            tasks, after = _step(broker, which, size, after, newest_first)
        yield [task for task in tasks if which.text is None or which.matches(_arguments(app, task.record))], after
        if after is None:
            return


def _step(broker: Broker, which: CheckedFilter, size: int, after: str | None, newest_first: bool) -> tuple[list[ListedTask], str | None]:
    if after is not None and not isinstance(after, str):
        raise InvalidOptions(f"cursor: {after!r} is none; give that of the page before")
    try:
        answer = broker.list_tasks(which.stored, size, after, newest_first)
    except InvalidOptions:
        raise
    except ValueError:
        raise InvalidOptions(f"cursor: {after!r} is none; give that of the page before, as it was") from None
    return answer.tasks, answer.next


def _arguments(app: Application, record: StatusRecord) -> dict[str, object] | None:
    return app.shown_arguments(record.name, record.args)


def listed_status(app: Application, record: StatusRecord) -> TaskStatus:
    """As people see it. A result that cannot be read is left out: the rest of the list can."""
    args = _arguments(app, record)
    try:
        return status_of(record, app.result_converter(record.name), args)
    except StemError:
        return status_of(msgspec.structs.replace(record, result=None), None, args)
