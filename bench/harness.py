"""What the benches share: percentiles, a table for people, JSON for programs (bench/out)."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent / "out"


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def spread(values: Sequence[float], scale: float = 1e3, digits: int = 2) -> dict[str, float]:
    """p50, p99 and worst, in units of 1/scale."""
    points = {"p50": percentile(values, 0.5), "p99": percentile(values, 0.99), "max": max(values)}
    return {name: round(value * scale, digits) for name, value in points.items()} | {"n": len(values)}


class Progress:
    """Holds that what is left becomes less. A bound for a whole run is one that a busy machine passes."""

    STUCK = 60.0  # seconds without less, after which what is left does not end

    def __init__(self) -> None:
        self._least, self._at = inf, time.monotonic()

    def check(self, count: int, left: object) -> None:
        """Raises AssertionError with `left`."""
        now = time.monotonic()
        if count < self._least:
            self._least, self._at = count, now
        assert now < self._at + self.STUCK, f"does not end: {left}"


def report(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table and write the JSON."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [[str(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[at]) for line in cells)) for at, column in enumerate(columns)]
    for line in (columns, ["-" * width for width in widths], *cells):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "python": sys.version.split()[0]}
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps({"bench": name, "machine": machine, "rows": list(rows)}, indent=1) + "\n")
