"""Every hostile handler, twenty times in a row, under three conditions: how it ends, who survives it, who hears of it how late.

    python -m bench.hostile [--rounds 20] [--only NAME ...] [--conditions idle regex busy held]

    idle    a worker by command with an innocent task beside
    regex   the same, an inline handler in a regular expression that keeps the GIL from before the task starts until after its limit
    busy    the same, and a process that spins on every core
    held    a worker without root's right to kill; handlers with a process that cannot be killed until somebody lets it go

One worker a condition. Each end must be the one of `tests.hostile.expected`; in the instant in which it is known nothing that the task
started may live (ledger, session, marker, title), and a second later none of it may be a zombie; the next task must be served, in a process
as the first one had it; the task beside must succeed where it began; launcher and core must be the processes that they were. Whatever is
not so is printed, and the exit code is 1. `dead`: ms after the limit; `known`: ms until the end was stored; `neighbour`: the same of an
innocent task that reaches its limit beside it; `named`: ms until an event names what cannot be killed.
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

import pytest

from bench.harness import report, spread
from entrypoints.hostile import app
from tests.hostile.expected import EXPECTED
from tests.hostile.held import HOLDERS, QUERY, run_held
from tests.hostile.proving import BOUND, Finding, Proving
from tests.isolate.capabilities import drop_right_to_kill

CONDITIONS = ("idle", "regex", "busy", "held")
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
    known: list[float] = field(default_factory=list)
    neighbour: list[float] = field(default_factory=list)
    named: list[float] = field(default_factory=list)
    missing: str = ""  # why this machine cannot do it

    def add(self, found: Finding) -> None:
        self.tasks.append(found.status.id)
        self.right += not found.faults
        self.wrong += [f"{self.condition}, {self.name}: {fault}" for fault in found.faults]
        self.known += [] if found.late is None else [found.late]
        self.neighbour.append(found.neighbour_late)


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
    running = proving.start(row.name)
    holder = proving.app.enqueue("innocent.hold_the_gil", {"length": regex.length(limit + COVER)})
    found = proving.end(running)
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
        Proving(Path(folder), "-c", "5", "--spares", "2") as proving,
        spinners() if condition == "busy" else nullcontext(),
    ):
        for name in names:
            row = Row(name, condition)
            with proving.neighbour():
                for _ in range(rounds):
                    run_once(proving, row, regex)
                    proving.echo(3)
                    if (state := proving.state()) != proving.fresh:
                        row.right -= 1
                        row.wrong += [
                            f"{condition}, {name}: left {key} = {value}" for key, value in state.items() if value != proving.fresh[key]
                        ]
            rows.append(row)
            print(f"{condition}: {name} {row.right} of {rounds}", *row.wrong, sep="\n    ", flush=True)
        proving.assert_unharmed()
        for row in rows:
            row.dead = [event.dead_at for id in row.tasks if (event := proving.hard.get(id)) and event.dead_at is not None]
    return rows


def prove_held(rounds: int) -> list[Row]:
    rows = [Row(name, "held") for name in HOLDERS]
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        Proving(Path(folder), "-c", "6", "--spares", "2", query=QUERY, before=drop_right_to_kill) as proving,
        proving.neighbour(),
    ):
        for row in rows:
            try:
                for number in range(rounds):
                    found = run_held(proving, row.name)
                    row.tasks.append(f"{row.name} {number}")
                    row.right += not found.faults
                    row.wrong += [f"held, {row.name}: {fault}" for fault in found.faults]
                    row.named.append(found.named)
                    row.neighbour += found.neighbours
            except pytest.skip.Exception as reason:
                row.missing = str(reason)
            print(f"held: {row.name} {row.right} of {len(row.tasks)}", *row.wrong, row.missing, sep="\n    ", flush=True)
        proving.assert_unharmed()
    return rows


def points(name: str, seconds: list[float]) -> dict[str, float]:
    return {f"{name} {point}": value for point, value in spread(seconds, digits=1).items() if point != "n"} if seconds else {}


def as_line(row: Row) -> dict[str, Any]:
    survivors = sum("survived" in fault for fault in row.wrong)
    covered = {"in the regex": row.covered} if row.condition == "regex" else {}
    return {
        "condition": row.condition,
        "handler": row.name,
        "right": f"{row.right}/{len(row.tasks)}",
        "survivors": survivors,
        "zombies": sum("not reaped" in fault for fault in row.wrong),
        **points("dead", row.dead),
        **points("known", row.known),
        **points("neighbour", row.neighbour),
        **points("named", row.named),
        **covered,
        **({"not here": row.missing} if row.missing else {}),
    }


def total(rows: list[Row], condition: str) -> Row:
    mine = [row for row in rows if row.condition == condition]
    every = Row("all of them", condition, sum(row.right for row in mine), sum(row.covered for row in mine))
    for row in mine:
        for name in ("tasks", "wrong", "dead", "known", "neighbour", "named"):
            getattr(every, name).extend(getattr(row, name))
    return every


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", nargs="*", choices=list(EXPECTED), default=list(EXPECTED))
    parser.add_argument("--conditions", nargs="*", choices=CONDITIONS, default=list(CONDITIONS))
    options = parser.parse_args()
    regex = Regex()
    conditions = [condition for condition in options.conditions if condition != "held"]
    rows = [row for condition in conditions for row in prove(condition, options.only, options.rounds, regex)]
    if "held" in options.conditions:
        rows += prove_held(options.rounds)
    report("hostile", [as_line(row) for row in (*rows, *(total(rows, condition) for condition in options.conditions))])
    sys.exit("not everything ended as it must" if any(row.wrong for row in rows) else 0)


if __name__ == "__main__":
    main()
