"""Two runs side by side: medians and the bootstrap interval of their difference. Pure, but for the dice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from bench.reference.matrix import text_table
from bench.reference.samples import Sample, label
from bench.reference.statistics import difference

TIMES = ("dead", "told", "next", "bystander_late")
Cell = tuple[str, str, str]


def table(first: Sequence[Sample], second: Sequence[Sample], dice: Random | None = None) -> str:
    """Every cell that both have; a star where the interval does not hold zero."""
    left, right = cells(first), cells(second)
    rows = [["system", "handler", "time", "n", "first ms", "second ms", "difference, 95%", ""]]
    for cell in sorted(left.keys() & right.keys()):
        found = difference(left[cell], right[cell], dice=dice or Random(1))
        interval = f"{found.low * 1e3:+.1f} … {found.high * 1e3:+.1f}"
        counts = f"{len(left[cell])}, {len(right[cell])}"
        rows.append([*cell, counts, f"{found.first * 1e3:.1f}", f"{found.second * 1e3:.1f}", interval, "*" if found.sure else ""])
    return text_table(rows) if len(rows) > 1 else "no cell is in both runs"


def cells(lines: Iterable[Sample]) -> dict[Cell, list[float]]:
    """Times of right outcomes alone: a wrong outcome is wrong, not fast."""
    found: dict[Cell, list[float]] = {}
    for line in lines:
        if line["kind"] != "enforce" or not line["right"]:
            continue
        for time in TIMES:
            if (value := line.get(time)) is not None:
                found.setdefault((label(line), line["handler"], time), []).append(value)
    return found
