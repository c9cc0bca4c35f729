"""The matrix of systems × handlers, and tables: what each cell says, decided here; how it looks, elsewhere. Pure.

A cell is judged by its worst sample: `wrong` (told something else, or nothing), else `alive` (the handler outlived the bound), else `left`
(somebody was alive a second later), else `harms` (an innocent task beside it ended with it), else `right`. Times count of cells that are
right: a wrong outcome is wrong, not fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

from bench.handlers import HANDLERS
from bench.reference.samples import Sample, label
from bench.reference.statistics import Summary, percentile, summary

LEAD = 0.0005  # seconds: what is closer is a draw

Verdict = Literal["right", "harms", "left", "alive", "wrong"]


@dataclass(frozen=True)
class Cell:
    verdict: Verdict
    n: int
    dead: Summary | None
    told: Summary | None
    next: Summary | None
    bystander: Summary | None
    told_first: int  # samples in which the caller was told before the process was dead
    harmed: int  # samples in which the bystander was
    left: int  # most that were alive after a second
    zombies: int
    said: str  # what the caller was told most often, where that was wrong


def matrix(lines: Iterable[Sample]) -> dict[tuple[str, str], Cell]:
    """Of (label, handler)."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for line in lines:
        if line["kind"] == "enforce":
            groups.setdefault((label(line), line["handler"]), []).append(line)
    return {key: cell(found) for key, found in groups.items()}


def cell(found: Sequence[Sample]) -> Cell:
    wrong = [line["word"] for line in found if not line["right"]]
    left = max(line.get("left_1", 0) for line in found)
    alive = any(line.get("dead") is None for line in found)
    harmed = sum(bool(line.get("bystander_harmed")) for line in found)
    verdict: Verdict = "wrong" if wrong else "alive" if alive else "left" if left else "harms" if harmed else "right"
    times = {
        name: summary([line[name] for line in found if line.get(name) is not None]) for name in ("dead", "told", "next", "bystander_late")
    }
    return Cell(
        verdict, len(found), times["dead"], times["told"], times["next"], times["bystander_late"],
        told_first=sum(bool(line.get("told_first")) for line in found), harmed=harmed,
        left=left, zombies=max(line.get("zombies_1", 0) for line in found), said=max(wrong, key=wrong.count) if wrong else "",
    )  # fmt: skip


def handlers(cells: Iterable[tuple[str, str]]) -> list[str]:
    """In the order of `bench.handlers`."""
    seen = {handler for _, handler in cells}
    return [name for name in HANDLERS if name in seen]


def ranking(cells: dict[tuple[str, str], Cell]) -> list[str]:
    """Systems, those first that were right most often, then the quickest; ours get no place for being ours."""

    def key(system: str) -> tuple[int, float]:
        own = [found for (name, _), found in cells.items() if name == system]
        medians = [found.dead.median for found in own if found.verdict == "right" and found.dead]
        return -sum(found.verdict == "right" for found in own), percentile(medians, 0.5) if medians else inf

    return sorted({name for name, _ in cells}, key=key)


def wins(cells: dict[tuple[str, str], Cell], ours: tuple[str, ...]) -> list[str]:
    """Where another system is right and was sooner than ours, or right where ours is not: what a reader must see first."""
    found = []
    for handler in handlers(cells):
        title = HANDLERS[handler].title
        right = {name: one for (name, at), one in cells.items() if at == handler and one.verdict == "right"}
        theirs = {name: one for name, one in right.items() if not name.startswith(ours)}
        if len(theirs) == len(right):
            tried = any(at == handler and name.startswith(ours) for name, at in cells)
            found += [f"{title}: {', '.join(sorted(theirs))} right, stem_iso not"] if theirs and tried else []
            continue
        for what, text in (("dead", "the process is dead"), ("told", "the caller is told"), ("next", "the next task starts")):
            times = {name: time.median for name, one in right.items() if (time := getattr(one, what))}
            own = min((time for name, time in times.items() if name.startswith(ours)), default=inf)
            best = min(times, key=lambda name: times[name], default="")
            if best in theirs and times[best] < own - LEAD:
                found.append(f"{title}: {text} {milliseconds(times[best])} after the limit with {best}, {milliseconds(own)} with stem_iso")
    return found


def milliseconds(seconds: float) -> str:
    if seconds == inf:
        return "not in time"
    return f"{seconds * 1e3:.1f} ms" if abs(seconds) < 0.1 else f"{seconds * 1e3:.0f} ms"


def text_table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)
