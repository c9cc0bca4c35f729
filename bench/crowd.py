"""64 isolates, eight of them hostile at once: how late the limits of the innocent are, beside a bare timer in the same run.

    python -m bench.crowd [--rounds 4] [--size 64]

The innocent sleep until a limit of their own somewhere in a second; the hostile spin, loop in C, have children or daemons, and reach their
limits in the same second. No isolate boots meanwhile. "signal": from the limit until its isolate is killed, which a crowd could delay
in the core; "dead": until it is. The timer is a process that sleeps to as many instants of the same second, one by one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.harness import report, spread
from stem_iso.outcome import TimedOut
from tests.isolate.calling import Calls

HOSTILE = ("spin", "c_loop", "regex", "swallow", "spin", "c_loop", "child", "daemon")
FIRST, LAST = 0.5, 1.5  # seconds: between these are the limits
TIMER = """
import json, random, sys, time
began, late = time.monotonic(), []
for at in sorted(random.Random(int(sys.argv[1])).uniform(0.5, 1.5) for _ in range(int(sys.argv[2]))):
    time.sleep(max(0.0, began + at - time.monotonic()))
    late.append(time.monotonic() - began - at)
print(json.dumps(late))
"""


def one_round(calls: Calls, size: int, dice: random.Random, folder: Path) -> dict[str, list[float]]:
    while calls.engine.stats().idle < size:  # until all are booted, and none is needed beside them
        for warm in [calls.start("sleep", 1.0) for _ in range(size)]:
            warm.outcome()
    timer = subprocess.Popen([sys.executable, "-c", TIMER, str(dice.randrange(1 << 30)), str(size)], stdout=subprocess.PIPE)
    fresh = iter(range(1 << 30))
    hostile = [
        calls.start(name, *((str(folder / f"{next(fresh)}"),) if name in ("child", "daemon") else ()), hard=dice.uniform(FIRST, LAST))
        for name in HOSTILE
    ]
    innocent = [calls.start("sleep_long", hard=dice.uniform(FIRST, LAST)) for _ in range(size - len(HOSTILE))]
    found: dict[str, list[float]] = {"signal": [], "dead": []}
    for call in innocent:
        outcome = call.outcome()
        assert isinstance(outcome, TimedOut), outcome
        found["signal"].append(outcome.signalled_at)
        found["dead"].append(outcome.dead_at)
    assert all(isinstance(call.outcome(), TimedOut) for call in hostile)
    return {**found, "timer": json.loads(timer.communicate()[0])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    calls, dice = Calls(size=options.size, spares=0), random.Random(64)
    found: dict[str, list[float]] = {"timer": [], "signal": [], "dead": []}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for what, values in one_round(calls, options.size, dice, Path(folder)).items():
                found[what] += values
    calls.engine.close()
    names = {"timer": "a bare timer is late by", "signal": "innocent limits: limit to signal", "dead": "innocent limits: limit to dead"}
    rows: list[dict[str, Any]] = [{"what": names[what], **spread(values)} for what, values in found.items()]
    report(
        "crowd",
        [*rows, {"what": f"{options.size} isolates, {len(HOSTILE)} hostile, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"}],
    )


if __name__ == "__main__":
    main()
