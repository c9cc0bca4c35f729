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
    """`soft`, `hard`: where these limits of the newest attempt stand; None where they lie outside or there are none."""

    steps: list[TimelineStep]
    soft: float | None
    hard: float | None
    seconds: float  # what the whole width stands for


def timeline(task: Any, now: float) -> Timeline | None:
    """Of the newest attempt of a `TaskView`: it waited, it runs or ran, and where its limits are. None where nothing is known."""
    began, ended = _seconds(task["started_at"]), _seconds(task["finished_at"])
    ready = max((at for at in (_seconds(task["enqueued_at"]), _seconds(task["not_before"])) if at is not None), default=None)
    waiting = task["state"] in ("queued", "retried")
    if waiting or began is None:
        began = None
    if ready is None or ready > (began or now):
        ready = began
    if ready is None:
        return None
    end = ended or now
    limits = task["limits"] or {}
    soft, hard = limits.get("soft_time_limit"), limits.get("hard_time_limit")
    run = 0.0 if began is None else max(0.0, end - began)
    shown = run if began is None else max(run, min(hard or 0.0, max(4 * run, 1.0)))  # a limit of an hour does not make a second unseen
    waited = max(0.0, (began or end) - ready)
    whole = max(waited + shown, 1e-6)
    steps = [TimelineStep("waited", 0.0, 100 * waited / whole, waited)]
    if began is not None:
        steps.append(TimelineStep(task["state"], 100 * waited / whole, max(0.4, 100 * run / whole), run))
    marks = [None if began is None or not limit or limit > shown else 100 * (waited + limit) / whole for limit in (soft, hard)]
    return Timeline(steps, marks[0], marks[1], whole)


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
