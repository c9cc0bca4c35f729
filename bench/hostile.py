"""Every hostile handler, twenty times in a row, under three conditions: how it ends, who survives it, how late it is dead.

    python -m bench.hostile [--rounds 20] [--only NAME ...] [--conditions idle regex busy]

    idle    a worker by command with an innocent task beside
    regex   the same, an inline handler in a regular expression that keeps the GIL from before the task starts until after its limit
    busy    the same, and a process that spins on every core

One worker a condition. Each end must be the one of `tests.hostile.expected`; in the instant in which it is known nothing that the task
started may live (ledger, session, marker, title); the next task must be served, the task beside must succeed where it began, and launcher
and core must be the processes that they were. Whatever is not so is printed, and the exit code is 1. `dead`: ms after the limit.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from bench.harness import report, spread
from entrypoints.hostile import app
from tests.hostile.expected import EXPECTED
from tests.hostile.proving import BOUND, Finding, Proving

CONDITIONS = ("idle", "regex", "busy")
COVER = 0.3  # seconds for which the regular expression must go on beyond the limit


@dataclass
class Row:
    """What became of one handler under one condition."""

    name: str
    condition: str
    right: int = 0
    covered: int = 0  # runs whose limit fell into the regular expression
    tasks: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    dead: list[float] = field(default_factory=list)  # seconds after the limit

    def add(self, found: Finding) -> None:
        self.tasks.append(found.status.id)
        faults = [*([found.complaint] if found.complaint else []), *(f"survived: {line}" for line in found.survivors)]
        self.right += not faults
        self.wrong += [f"{self.condition}, {self.name}: {fault}" for fault in faults]


class Regex:
    """Knows how long a text must be to keep the GIL for a time; each character doubles it."""

    def __init__(self) -> None:
        self._length, self._takes = 16, 0.0
        while self._takes < 0.05:
            self._length += 1
            began = monotonic()
            re.fullmatch(r"(a+)+$", "a" * self._length + "b")
            self._takes = monotonic() - began

    def length(self, seconds: float) -> int:
        length, takes = self._length, self._takes
        while takes < seconds:
            length, takes = length + 1, takes * 2
        return length


def run_once(proving: Proving, row: Row, regex: Regex) -> None:
    if row.condition != "regex":
        row.add(proving.run(row.name))
        return
    limit = min(app.options_of(f"hostile.{row.name}").hard_time_limit or 0.0, 1.0)  # one that is longer is nobody's end
    handle, ledger, marker = proving.start(row.name)
    holder = proving.app.enqueue("innocent.hold_the_gil", {"length": regex.length(limit + COVER)})
    found = proving.end(row.name, handle, ledger, marker)
    row.add(found)
    began, ended = holder.result(timeout=BOUND)
    assert found.status.started_at is not None
    # Both clocks are the machine's: what the task's wall clock says, on the monotonic one.
    limit_at = found.status.started_at.timestamp() + limit - time.time() + monotonic()
    row.covered += began < limit_at < ended


@contextmanager
def spinners() -> Iterator[None]:
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def prove(condition: str, names: list[str], rounds: int, regex: Regex) -> list[Row]:
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        Proving(Path(folder), "-c", "4", "--spares", "2") as proving,
        spinners() if condition == "busy" else nullcontext(),
    ):
        for name in names:
            row = Row(name, condition)
            with proving.neighbour():
                for _ in range(rounds):
                    run_once(proving, row, regex)
                    proving.echo(3)
            rows.append(row)
            print(f"{condition}: {name} {row.right} of {rounds}", *row.wrong, sep="\n    ", flush=True)
        proving.assert_unharmed()
        for row in rows:
            row.dead = [event.dead_at for id in row.tasks if (event := proving.hard.get(id)) and event.dead_at is not None]
    return rows


def told(row: Row) -> dict[str, Any]:
    survivors = sum("survived" in fault for fault in row.wrong)
    points = {name: value for name, value in spread(row.dead, digits=1).items() if name != "n"} if row.dead else {}
    covered = {"in the regex": row.covered} if row.condition == "regex" else {}
    return {
        "condition": row.condition,
        "handler": row.name,
        "right": f"{row.right}/{len(row.tasks)}",
        "survivors": survivors,
        **{f"dead {name}": value for name, value in points.items()},
        **covered,
    }


def total(rows: list[Row], condition: str) -> Row:
    mine = [row for row in rows if row.condition == condition]
    every = Row("all of them", condition, sum(row.right for row in mine), sum(row.covered for row in mine))
    for row in mine:
        every.tasks, every.wrong, every.dead = every.tasks + row.tasks, every.wrong + row.wrong, every.dead + row.dead
    return every


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", nargs="*", choices=list(EXPECTED), default=list(EXPECTED))
    parser.add_argument("--conditions", nargs="*", choices=CONDITIONS, default=list(CONDITIONS))
    options = parser.parse_args()
    regex = Regex()
    rows = [row for condition in options.conditions for row in prove(condition, options.only, options.rounds, regex)]
    report("hostile", [told(row) for row in (*rows, *(total(rows, condition) for condition in options.conditions))])
    sys.exit("not everything ended as it must" if any(row.wrong for row in rows) else 0)


if __name__ == "__main__":
    main()
