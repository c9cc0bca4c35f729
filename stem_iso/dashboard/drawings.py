"""Geometry of what is drawn on a page: bars against limits, the timeline of a task, columns of a chart. Percentages, for SVG.

    elapsed 75 s, soft 60 s, hard 120 s ──> ████████▓▓▓▒|░░░░░░░  fill 62.5, soft at 50, tone "late"

Rules
 1. The end of a bar is the limit that ends the task. Where there is none, it is half as much again as the soft one or what has elapsed,
    and the bar says by `open` that nothing ends there.
 2. The tone says how near the end is: "calm", "late" (past the soft limit), "near" (nine tenths of the hard one), "over".

Pure: what is now comes in as `elapsed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

NEAR = 0.9
NARROWEST = 0.4  # percent: an attempt of a millisecond can be seen


@dataclass(frozen=True, slots=True)
class Bar:
    """Percent of the width. `soft`: where its mark stands, None without one."""

    fill: float
    soft: float | None
    tone: str
    open: bool
    end: float  # what the whole width stands for


def bar(value: float, soft: float | None, hard: float | None) -> Bar | None:
    """None where there is no limit to measure by."""
    if not soft and not hard:
        return None
    end = hard or max(soft or 0.0, value) * 1.5
    mark = None if not soft or soft >= end else 100 * soft / end
    return Bar(min(100.0, 100 * value / end), mark, tone_of(value, soft, hard), not hard, end)


def tone_of(value: float, soft: float | None, hard: float | None) -> str:
    if hard and value >= hard:
        return "over"
    if hard and value >= NEAR * hard:
        return "near"
    return "late" if soft and value >= soft else "calm"


@dataclass(frozen=True, slots=True)
class TimelineStep:
    """One stretch of a timeline: percent from the left, and as wide. `kind`: "waited", or the state that it ended in."""

    kind: str
    left: float
    width: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """`marks`: where limits stand, ("soft" or "hard", percent); those that lie outside, or behind the begin of the next attempt, are left
    out. `waited`: seconds in all."""

    steps: list[TimelineStep]
    marks: list[tuple[str, float]]
    waited: float
    seconds: float  # what the whole width stands for

    def has(self, kind: str) -> bool:
        return any(kind == each for each, _ in self.marks)


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt of a task, the newest too. `seconds`: how long it ran, None where it never began."""

    run: int
    attempt: int
    state: str
    reason: str
    killed: bool
    started_at: str | None
    seconds: float | None
    soft: float | None
    hard: float | None
    error: str
    newest: bool = False


def attempt_rows(task: Any) -> list[AttemptRow]:
    """Of a `TaskView`, oldest first; the newest one is among them if it has begun."""
    rows = [_row_of(each) for each in task["attempts"]]
    if task["started_at"] is None or task["state"] in ("queued", "retried"):
        return rows
    limits, error = task["limits"] or {}, task["error"] if task["state"] in ("failed", "cancelled") else None
    newest = AttemptRow(
        run=task["run"],
        attempt=task["attempt"],
        state=task["state"],
        reason=task["reason"] or "",
        killed=False,
        started_at=task["started_at"],
        seconds=task["elapsed"],
        soft=limits.get("soft_time_limit"),
        hard=limits.get("hard_time_limit"),
        error="" if error is None else _in_a_line(error["type"], error["message"]),
        newest=True,
    )
    return [*rows, newest]


def _row_of(ended: Any) -> AttemptRow:
    began, over = _seconds(ended["started_at"]), _seconds(ended["finished_at"])
    return AttemptRow(
        run=ended["run"],
        attempt=ended["attempt"],
        state=ended["state"],
        reason=ended["reason"],
        killed=ended["killed"],
        started_at=ended["started_at"],
        seconds=None if began is None or over is None else max(0.0, over - began),
        soft=ended["soft_time_limit"],
        hard=ended["hard_time_limit"],
        error=_in_a_line(ended["error_type"], ended["error_message"]),
    )


def _in_a_line(type: str, message: str) -> str:
    return f"{type.rpartition('.')[2]}: {message.partition(chr(10))[0]}" if message else type


def timeline(task: Any, now: float) -> Timeline | None:
    """Of a `TaskView`: what it waited, each attempt, and where its limits are. None where nothing is known."""
    rows = [(began, row) for row in attempt_rows(task) if (began := _seconds(row.started_at)) is not None]
    runs = bool(rows) and rows[-1][1].newest  # or has run
    first = _begin(task, [began for began, _ in rows], now)
    if first is None:
        return None
    end = rows[-1][0] + _shown(rows[-1][1]) if runs else now
    whole = max(end - first, 1e-6)
    steps, marks, at = [], [], first
    for place, (began, row) in enumerate(rows):
        ran, following = row.seconds or 0.0, rows[place + 1][0] if place + 1 < len(rows) else end
        steps += _stretch(at - first, began - at, whole)
        width = max(NARROWEST, 100 * ran / whole)
        steps.append(TimelineStep(row.state, min(100 * max(0.0, began - first) / whole, 100 - width), width, ran))
        limits = [(kind, limit) for kind, limit in (("soft", row.soft), ("hard", row.hard)) if limit]
        marks += [(kind, 100 * (began - first + limit) / whole) for kind, limit in limits if began + limit < following + 1e-6]
        at = max(at, began + ran)
    if not runs:
        steps += _stretch(at - first, now - at, whole)
    return Timeline(steps, marks, sum(step.seconds for step in steps if step.kind == "waited"), whole)


def _begin(task: Any, begun: list[float], now: float) -> float | None:
    """Where the timeline begins: when the task was enqueued; of one that has a single attempt, when that was due."""
    known = [at for at in (_seconds(task["enqueued_at"]), _seconds(task["not_before"])) if at is not None]
    if task["attempts"] and begun:
        oldest = task["attempts"][0]
        whole = oldest["run"] == oldest["attempt"] == 0  # nothing is known of what was before the oldest of them
        return min(known[:1] + begun if whole else begun)
    ready = max(known, default=None)
    if ready is not None and ready <= (begun[0] if begun else now):
        return ready
    return begun[0] if begun else None


def _shown(newest: AttemptRow) -> float:
    """Seconds of the newest attempt that have room: a limit of an hour does not make a second unseen."""
    ran = newest.seconds or 0.0
    return max(ran, min(newest.hard or 0.0, max(4 * ran, 1.0)))


def _stretch(begin: float, seconds: float, whole: float) -> list[TimelineStep]:
    return [TimelineStep("waited", 100 * begin / whole, 100 * seconds / whole, seconds)] if seconds > 0 else []


def _seconds(moment: str | None) -> float | None:
    return None if moment is None else datetime.fromisoformat(moment).timestamp()


def in_buckets(column: Sequence[int], width: int) -> list[int]:
    """Sums of `width` places each, counted from the end, so that the newest bucket is whole and the oldest may lack some."""
    first = len(column) % width
    head = [sum(column[:first])] if first else []
    return head + [sum(column[place : place + width]) for place in range(first, len(column), width)]


@dataclass(frozen=True, slots=True)
class GraphColumn:
    """One column of a chart, percent: from the left, as wide, and of each kind (bottom, height), lowest first."""

    left: float
    width: float
    parts: list[tuple[str, float, float]]


def columns(series: dict[str, list[int]], kinds: Sequence[str]) -> list[GraphColumn]:
    """Stacked; empty columns are left out."""
    stacks = list(zip(*(series[kind] for kind in kinds), strict=True))
    highest = max((sum(stack) for stack in stacks), default=0)
    if not highest:
        return []
    found, width = [], 100 / len(stacks)
    for place, stack in enumerate(stacks):
        parts, bottom = [], 0.0
        for kind, number in zip(kinds, stack, strict=True):
            height = 100 * number / highest
            if height:
                parts.append((kind, bottom, height))
            bottom += height
        if parts:
            found.append(GraphColumn(width * place, width * 0.8, parts))
    return found
