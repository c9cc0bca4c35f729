"""Groups of failed tasks: by the type of their error and the place where it was raised.

    TaskStatus … ── (error.type, innermost frame) ──> FailureGroup …    the one with most tasks first

Pure. The place is the last frame of the traceback, or where the handler was stuck when its limit came: of these the innermost of the
application's own code, where there is any, for unlike tasks are stuck in the same line of `re` or `socket`; of a task whose error has
neither, "". Line numbers are a part of it: after a deploy the same fault may be a second group, which is what somebody wants to see.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from stem_iso.dashboard.shapes import FailureGroup
from stem_iso.outcome import TaskError, TaskStatus

# Blanks and tabs, never line ends: a message of thousands of empty lines would be looked through once from each of them.
FRAME = re.compile(r'^[ \t]*File "([^"\n]{1,1000})", line (\d{1,9})(?:,)? in ([^\n]{1,200})', re.MULTILINE)
LIBRARY = re.compile(r"/(?:site|dist)-packages/|/lib/python3\.\d+/|^<frozen |[\\/]Lib[\\/]")  # Python's own modules, and what pip installed
NEWEST = 20  # ids that a group names
LONGEST_MESSAGE = 2000  # characters


def place_of(error: TaskError) -> str:
    """`/srv/shop/tasks.py:12 in make`, "" where nothing says it. A traceback has its innermost frame last; so has a stack, unless it is
    one of faulthandler's, which says "most recent call first"."""
    for text in (error.traceback, error.stack):
        if frames := FRAME.findall(text):
            inwards = frames[::-1] if "most recent call first" in text else frames
            own = [frame for frame in inwards if not LIBRARY.search(frame[0])]
            path, line, function = (own or inwards)[-1]
            return f"{path}:{line} in {function.strip()}"
    return ""


def grouped(tasks: Iterable[TaskStatus]) -> list[FailureGroup]:
    """`tasks`: failed ones, newest first."""
    groups: dict[tuple[str, str], list[TaskStatus]] = {}
    for task in tasks:
        error = task.error or TaskError(type=task.reason or "failed")
        groups.setdefault((error.type, place_of(error)), []).append(task)
    made = [_group(type, place, found) for (type, place), found in groups.items()]
    return sorted(made, key=lambda group: -group["count"])


def _group(type: str, place: str, tasks: list[TaskStatus]) -> FailureGroup:
    ends = sorted(task.finished_at for task in tasks if task.finished_at is not None)
    newest = tasks[0].error
    return FailureGroup(
        type=type,
        place=place,
        message="" if newest is None else newest.message[:LONGEST_MESSAGE],
        count=len(tasks),
        names=dict(Counter(task.name for task in tasks).most_common()),
        queues=dict(Counter(task.queue for task in tasks).most_common()),
        first_at=_written(ends[0]) if ends else None,
        last_at=_written(ends[-1]) if ends else None,
        newest=[task.id for task in tasks[:NEWEST]],
    )


def _written(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
