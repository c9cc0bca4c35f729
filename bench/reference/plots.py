"""Pictures of a run, by matplotlib, each in a light and in a dark version of the same colours.

    overshoot     seconds from limit to death, every sample a dot, on a log axis; what was not dead within the bound stands at its edge
    left_behind   systems × handlers, each cell its verdict
    timeline      one kill, event by event, of each system: the sample nearest to the median
    throughput    calls a second against processes      payload   a call by its size
    depth         cost of a task against what is queued      memory   of an idle worker

A picture whose measure was not run is not drawn. Colours are told apart by who cannot tell red from green, and each verdict is also a word.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator

from bench.handlers import HANDLERS
from bench.reference.matrix import Cell, handlers, matrix, ranking
from bench.reference.promises import OURS
from bench.reference.samples import Sample, label
from bench.reference.statistics import percentile

FLOOR, BOUND = 1e-4, 4.0  # seconds; what is sooner than the floor stands on it


@dataclass(frozen=True)
class Theme:
    name: str
    paper: str
    ink: str
    faint: str
    ours: str
    theirs: str
    verdicts: dict[str, str]


LIGHT = Theme("light", "#ffffff", "#1c2430", "#d5dae1", "#0b6bcb", "#7c8796",
              {"right": "#d3e9fb", "harms": "#e4dcf6", "left": "#fbe3b5", "alive": "#f5b78a", "wrong": "#e8a0a8"})  # fmt: skip
DARK = Theme("dark", "#14181f", "#e4e8ee", "#39424f", "#6cb6ff", "#8b96a5",
             {"right": "#1d4466", "harms": "#453a6b", "left": "#6b4f14", "alive": "#7d431c", "wrong": "#7a2b38"})  # fmt: skip
THEMES = (LIGHT, DARK)
MARKS = {"dead": "X", "caller told": "o", "next starts": ">"}  # others are signals
LEVELS = (10, -10, 24, -24)  # points: names of neighbours on a crowded line
WORDS = {"right": "clean", "harms": "harms", "left": "leaves", "alive": "still runs", "wrong": "wrong"}


def draw(lines: Sequence[Sample], to: Path) -> list[str]:
    """Writes NAME-light.png and NAME-dark.png; returns the names."""
    drawn = []
    for name, picture in PICTURES.items():
        for theme in THEMES:
            with styled(theme):
                figure = picture(lines, theme)
                if figure is None:
                    break
                figure.savefig(to / f"{name}-{theme.name}.png", dpi=144, bbox_inches="tight", pad_inches=0.15)
                plt.close(figure)
        else:
            drawn.append(name)
    return drawn


@contextmanager
def styled(theme: Theme) -> Iterator[None]:
    settings: dict[Any, Any] = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), theme.ink),
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), theme.paper),
        **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
        "axes.edgecolor": theme.faint,
        "grid.color": theme.faint,
        "axes.axisbelow": True,
        "font.size": 10,
    }
    with plt.rc_context(settings):
        yield


def overshoot(lines: Sequence[Sample], theme: Theme) -> Any:
    found = [
        line for line in lines if line["kind"] == "enforce" and HANDLERS[line["handler"]].right != ("crash",) and line.get("began", True)
    ]
    if not found:
        return None
    order = ranking(matrix(found))
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(order) + 1.3))
    dice = random.Random(1)
    for row, system in enumerate(reversed(order)):
        own = [line for line in found if label(line) == system]
        colour = theme.ours if system.startswith(OURS) else theme.theirs
        dead = [line["dead"] for line in own if line["dead"] is not None]
        alive = sum(line["dead"] is None for line in own)
        places = [row + dice.uniform(-0.22, 0.22) for _ in dead]
        axes.scatter([max(value, FLOOR) for value in dead], places, s=22, alpha=0.7, color=colour, linewidths=0)
        if dead:
            axes.plot([max(percentile(dead, 0.5), FLOOR)] * 2, [row - 0.33, row + 0.33], color=theme.ink, linewidth=1.6)
        if alive:
            axes.text(BOUND * 1.25, row, f"{alive} of {len(own)} still run", va="center", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(FLOOR * 0.8, BOUND * 1.2)
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_yticks(range(len(order)), list(reversed(order)))
    axes.set_xticks([1e-4, 1e-3, 1e-2, 1e-1, 1], ["at the limit\nor sooner", "1 ms", "10 ms", "100 ms", "1 s"])
    axes.set_xlabel("from the limit to the death of the handler's process; a bar is the median")
    axes.grid(axis="x")
    return figure


def left_behind(lines: Sequence[Sample], theme: Theme) -> Any:
    cells = matrix(lines)
    if not cells:
        return None
    systems, columns = ranking(cells), handlers(cells)
    figure, axes = plt.subplots(figsize=(1.02 * len(columns) + 1.6, 0.5 * len(systems) + 1.6))
    for row, system in enumerate(systems):
        for column, handler in enumerate(columns):
            if (cell := cells.get((system, handler))) is None:
                continue
            axes.add_patch(Rectangle((column + 0.03, row + 0.05), 0.94, 0.9, color=theme.verdicts[cell.verdict], linewidth=0))
            axes.text(column + 0.5, row + 0.5, cell_text(cell), ha="center", va="center", fontsize=8)
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(systems), 0)
    axes.set_yticks([row + 0.5 for row in range(len(systems))], systems)
    axes.set_xticks([column + 0.5 for column in range(len(columns))], [HANDLERS[name].title for name in columns], rotation=35, ha="left")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def cell_text(cell: Cell) -> str:
    if cell.verdict == "left":
        return f"leaves {cell.left}"
    return WORDS[cell.verdict]


def timeline(lines: Sequence[Sample], theme: Theme) -> Any:
    """Of the handler that keeps the GIL, or whichever was run most; ours, pebble, Celery or billiard."""
    found = [line for line in lines if line["kind"] == "enforce" and line["settings"] == "best" and line.get("began", True)]
    handler = "holds_gil" if any(line["handler"] == "holds_gil" for line in found) else (found[0]["handler"] if found else "")
    shown = [
        sample for name in ("isolate_pool", "stem_iso_sqlite", "pebble", "celery", "billiard") if (sample := typical(found, name, handler))
    ]
    if not shown:
        return None
    figure, axes = plt.subplots(figsize=(9, 1.25 * len(shown) + 1))
    for row, sample in enumerate(reversed(shown)):
        colour = theme.ours if sample["system"].startswith(OURS) else theme.theirs
        axes.axhline(row, color=theme.faint, linewidth=1, zorder=0)
        for place, (at, text) in enumerate(events(sample)):
            axes.plot([at * 1e3], [row], MARKS.get(text, "v"), color=colour, markersize=7, markeredgecolor=theme.paper)
            lift = LEVELS[place % len(LEVELS)]
            line = {"arrowstyle": "-", "color": theme.faint, "shrinkB": 4}
            vertical = "bottom" if lift > 0 else "top"
            axes.annotate(text, (at * 1e3, row), (0, lift), textcoords="offset points", va=vertical, fontsize=8, arrowprops=line)
    axes.axvline(0, color=theme.ink, linewidth=1, linestyle=":")
    axes.set_xscale("symlog", linthresh=1, linscale=0.5)
    axes.set_xlim(-60, 6000)
    axes.set_xticks([-10, -1, 0, 1, 10, 100, 1000], ["−10", "−1", "limit", "1", "10", "100", "1000"])
    axes.set_ylim(-0.7, len(shown) - 0.3)
    axes.set_yticks(range(len(shown)), [label(sample) for sample in reversed(shown)])
    axes.set_xlabel(f"milliseconds around the limit of a handler that {'keeps the GIL' if handler == 'holds_gil' else 'is ' + handler}")
    return figure


def typical(found: Sequence[Sample], system: str, handler: str) -> Sample | None:
    own = sorted(
        (line for line in found if line["system"] == system and line["handler"] == handler and line["dead"] is not None),
        key=lambda line: line["dead"],
    )
    return own[(len(own) - 1) // 2] if own else None


def events(sample: Sample) -> list[tuple[float, str]]:
    """What happened, in order; signals of one kind within a millisecond are one."""
    import signal

    seen: list[tuple[float, str]] = []
    for event in sample.get("events", ()):
        name = signal.Signals(event["signal"]).name.removeprefix("SIG") if event["signal"] < 32 else f"RT {event['signal']}"
        if event["to"] == "handler" and name not in {text for _, text in seen}:
            seen.append((event["at"], name))
    for key, text in (("dead", "dead"), ("told", "caller told"), ("next", "next starts")):
        if sample.get(key) is not None:
            seen.append((sample[key], text))
    return sorted(seen)


def throughput(lines: Sequence[Sample], theme: Theme) -> Any:
    points = {
        (label(line), line["workers"]): line["count"] / line["seconds"] for line in lines if line["kind"] == "scale" and line.get("seconds")
    }
    return curves(points, theme, "isolates or processes", "calls a second", base=2)


def payload(lines: Sequence[Sample], theme: Theme) -> Any:
    measured = [line for line in lines if line["kind"] == "payload" and line.get("seconds")]
    points = {(label(line), line["size"] >> 10): line["seconds"] / line["count"] * 1e3 for line in measured}
    return curves(points, theme, "KiB given and returned", "milliseconds a call", base=2)


def depth(lines: Sequence[Sample], theme: Theme) -> Any:
    points = {
        (label(line), line["depth"]): line["seconds"] / line["added"] * 1e6 for line in lines if line["kind"] == "depth" and line["added"]
    }
    return curves(points, theme, "tasks queued", "microseconds to enqueue one more", base=10)


def curves(points: dict[tuple[str, int], float], theme: Theme, x: str, y: str, base: int) -> Any:
    if not points:
        return None
    figure, axes = plt.subplots(figsize=(9, 4))
    for system in sorted({name for name, _ in points}):
        own = sorted((at, value) for (name, at), value in points.items() if name == system)
        ours = system.startswith(OURS)
        axes.plot(*zip(*own, strict=True), "-o", color=theme.ours if ours else theme.theirs, linewidth=2.2 if ours else 1.2, markersize=4)
        axes.annotate(f" {system}", own[-1], va="center", fontsize=8)
    axes.set_xscale("log", base=base)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
        axis.set_minor_formatter(lambda value, _: "")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid()
    return figure


def memory(lines: Sequence[Sample], theme: Theme) -> Any:
    found: dict[str, dict[int, list[float]]] = {}
    for line in lines:
        if line["kind"] == "memory":
            found.setdefault(label(line), {}).setdefault(line["workers"], []).append(line["bytes"] / 2**20)
    bars = {system: (percentile(by[5], 0.5) - percentile(by[1], 0.5)) / 4 for system, by in found.items() if by.keys() >= {1, 5}}
    if not bars:
        return None
    order = sorted(bars, key=lambda system: -bars[system])
    figure, axes = plt.subplots(figsize=(9, 0.36 * len(order) + 1))
    axes.barh(
        order, [bars[name] for name in order], color=[theme.ours if name.startswith(OURS) else theme.theirs for name in order], height=0.6
    )
    for row, name in enumerate(order):
        axes.text(bars[name], row, f" {bars[name]:.1f}", va="center", fontsize=9)
    axes.set_xlabel("MiB (proportional) for each further idle worker")
    return figure


PICTURES: dict[str, Callable[[Sequence[Sample], Theme], Any]] = {
    "overshoot": overshoot,
    "left_behind": left_behind,
    "timeline": timeline,
    "throughput": throughput,
    "payload": payload,
    "depth": depth,
    "memory": memory,
}
