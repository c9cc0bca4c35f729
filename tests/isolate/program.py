"""A program with an engine of its own, for the tests that stop or kill it. Prints a JSON line when all runs, and one at each end.

argv: folder for pids, hard limit (0: none), what the main thread does meanwhile (MEANWHILE)
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from stem_iso.outcome import TimedOut
from tests.isolate.calling import Calls, pid_in


def wait() -> None:
    """Leaves the GIL alone."""


def spin() -> None:
    for _ in range(10_000):
        pass


def keep_the_gil() -> None:
    """For a tenth of a second or two at a time."""
    sum(range(8_000_000))


MEANWHILE = {"wait": wait, "spin": spin, "keep the GIL": keep_the_gil}


def main() -> None:
    folder, hard, meanwhile = Path(sys.argv[1]), float(sys.argv[2]) or None, MEANWHILE[sys.argv[3]]
    calls = Calls(size=4, spares=1)
    for warm in [calls.start("sleep", 0.05) for _ in range(4)]:
        warm.outcome()
    running = {
        "spin": calls.start("write_pid_and_spin", str(folder / "spin"), hard=hard),
        "child": calls.start("child", str(folder / "child"), hard=hard),
        "daemon": calls.start("daemon", str(folder / "daemon"), hard=hard),
        "c_loop": calls.start("write_pid_and_c_loop", str(folder / "c_loop"), hard=hard),
    }
    for name in running:
        pid_in(folder / name)
    print(json.dumps({"core": os.getpid(), "keeper": calls.engine._isolates.keeper.pid}), flush=True)
    while meanwhile is not wait and not all(call.outcomes for call in running.values()):
        meanwhile()
    for name, call in running.items():
        outcome = call.outcome()
        report = {"name": name, "timed_out": isinstance(outcome, TimedOut), "levels": call.levels(), "outcomes": len(call.outcomes)}
        report["limit_at"] = call.sent_at + (hard or 0.0)
        report["dead"] = report["limit_at"] + outcome.dead_at if isinstance(outcome, TimedOut) else None
        print(json.dumps({**report, "outcome": str(outcome)}), flush=True)
    print(json.dumps({"next": calls.value("echo", "served")}), flush=True)
    calls.engine.close()


main()
