"""Tables of queues for the report: a task alone, and what a kill costs. Pure.

What a system did not do is "none", and what it was not asked is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from bench.reference.matrix import milliseconds
from bench.reference.queues import SOON
from bench.reference.samples import Sample, label
from bench.reference.statistics import percentile

ALONE = {"add": "stored", "start": "started", "answer": "answered"}
COUNTS = {
    "lost": f"not back in {SOON:g} s",
    "failed": "failed, and told so",
    "twice": "run twice",
    "redelivered": "begun twice",
    "untold": "never told of",
}


def html(lines: Sequence[Sample]) -> str:
    parts = []
    if found := alone(lines):
        rows = {name: [milliseconds(cells[key]) if key in cells else "none" for key in ALONE] for name, cells in found.items()}
        parts.append(
            "<h2>A task alone</h2><p class=soft>Median from the call that enqueues it, on a worker that idles.</p>"
            + _table(ALONE.values(), rows)
        )
    for target, title in (("child", "A child is killed"), ("worker", "The worker is killed")):
        if losses := lost(lines, target):
            rows = {name: [str(cells[key]) if cells else "none" for key in COUNTS] for name, cells in losses.items()}
            parts.append(
                f"<h2>{title}</h2><p class=soft>In the middle of a batch; a worker that died is started again. "
                f"Tasks of {max((cells.get('tasks', 0) for cells in losses.values()), default=0)}.</p>" + _table(COUNTS.values(), rows)
            )
    return "".join(parts)


def alone(lines: Iterable[Sample]) -> dict[str, dict[str, float]]:
    """Medians by label."""
    values: dict[str, dict[str, list[float]]] = {}
    for line in lines:
        if line["kind"] == "latency":
            for key in ALONE:
                values.setdefault(label(line), {}).setdefault(key, []).extend(line[key])
        elif line["kind"] == "broken" and line.get("measure") == "latency":
            values.setdefault(label(line), {})
    return {name: {key: percentile(each, 0.5) for key, each in cells.items()} for name, cells in sorted(values.items())}


def lost(lines: Iterable[Sample], target: str) -> dict[str, dict[str, int]]:
    """Sums by label; empty for a system whose batch did not get on."""
    sums: dict[str, dict[str, int]] = {}
    for line in lines:
        if line["kind"] == "loss" and line["target"] == target:
            cells = sums.setdefault(label(line), {})
            for key in (*COUNTS, "tasks"):
                cells[key] = cells.get(key, 0) + line[key]
        elif line["kind"] == "broken" and line.get("measure") == "loss":
            sums.setdefault(label(line), {})
    return dict(sorted(sums.items()))


def _table(columns: Iterable[str], rows: Mapping[str, Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr><th>{escape(name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" for name, cells in rows.items())
    return f"<div class=wide><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
