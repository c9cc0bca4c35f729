"""From the hard limit to the signal, to the death, to the report to the caller; beside a bare SIGKILL of a process in the same run.

    python -m bench.limits [--runs 40]

"reported" is measured in the caller, from the limit's due time to its `ended` callback; milliseconds. Between signal and death lie the
kernel, and for a tree the walk over it; between death and report the keeper's search for orphans, its message, and this program's turn. "x"
is the median as a multiple of the bare SIGKILL's, which is what a busy machine leaves comparable.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from bench.harness import report, spread
from stem_iso.isolate.engine.lifecycle import State
from stem_iso.outcome import Crashed, TimedOut
from tests.isolate.calling import Calls, eventually

LIMIT = 0.25


def idle(calls: Calls) -> None:
    """Wait until every isolate has booted, so that no boot disturbs what is measured."""
    isolates = calls.engine._isolates.by_number
    eventually(lambda: isolates and all(each.life.state is State.IDLE for each in list(isolates.values())), "no idle isolate")
    sleep(0.05)


def hard_limit(name: str, *args: Any, runs: int, fresh: Path | None = None) -> list[dict[str, Any]]:
    calls = Calls(size=1, spares=1)
    calls.value("echo", 0)
    signalled, dead, ended = [], [], []
    for number in range(runs):
        idle(calls)
        given = (*args, str(fresh / f"{name}-{number}")) if fresh else args
        recorder = calls.start(name, *given, hard=LIMIT)
        outcome = recorder.outcome()
        assert isinstance(outcome, TimedOut), outcome
        signalled.append(outcome.signalled_at)
        dead.append(outcome.dead_at)
        ended.append(recorder.ended_at - recorder.sent_at - LIMIT)
    calls.engine.close()
    return [{"case": name, "what": what, **spread(values)} for what, values in (("signal", signalled), ("dead", dead), ("reported", ended))]


def with_company(kind: str, runs: int) -> list[dict[str, Any]]:
    """One of `entrypoints.hostile`, which has a limit of four times as long, to have started what it starts."""
    calls = Calls(size=1, spares=1)
    calls.value("echo", 0)
    rows: dict[str, list[float]] = {"dead": [], "reported": []}
    most = 0
    for _ in range(runs):
        idle(calls)
        recorder = calls.start("company", kind, hard=4 * LIMIT)
        outcome = recorder.outcome()
        assert isinstance(outcome, TimedOut), outcome
        most = max(most, len(outcome.killed) - 1)
        rows["dead"].append(outcome.dead_at)
        rows["reported"].append(recorder.ended_at - recorder.sent_at - 4 * LIMIT)
    calls.engine.close()
    return [{"case": f"{kind} ({most} descendants)", "what": what, **spread(values)} for what, values in rows.items()]


def spinners(runs: int) -> list[dict[str, Any]]:
    """One of eight spinning isolates reaches its limit; the others spin on."""
    calls = Calls(size=9, spares=1)
    for warm in [calls.start("sleep", 0.5) for _ in range(9)]:
        warm.outcome()
    others = [calls.start("spin") for _ in range(7)]
    rows: dict[str, list[float]] = {"signal": [], "dead": []}
    for _ in range(runs):
        outcome = calls.run("spin", hard=LIMIT)
        assert isinstance(outcome, TimedOut), outcome
        rows["signal"].append(outcome.signalled_at)
        rows["dead"].append(outcome.dead_at)
    calls.engine.close()
    assert all(each.outcome() for each in others)
    return [{"case": "8 spinners", "what": what, **spread(values)} for what, values in rows.items()]


def crash(name: str, *args: Any, runs: int) -> dict[str, Any]:
    calls = Calls(size=1, spares=1)
    calls.value("echo", 0)
    ended = []
    for _ in range(runs):
        idle(calls)
        recorder = calls.start(name, *args)
        assert isinstance(recorder.outcome(), Crashed)
        ended.append(recorder.ended_at - recorder.sent_at)
    calls.engine.close()
    return {"case": f"crash: {name}", "what": "sent to reported", **spread(ended)}


def bare_kill(runs: int) -> dict[str, Any]:
    """The physical limit: SIGKILL of a spinning Python process that imported what an isolate imports, until its pidfd is readable."""
    taken = []
    for _ in range(runs):
        code = "import msgspec, loky, ctypes; print(1, flush=True)\nwhile True: pass"
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        pidfd = os.pidfd_open(process.pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        before = monotonic()
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll.poll()
        taken.append(monotonic() - before)
        process.wait()
        os.close(pidfd)
        process.stdout.close()
    return {"case": "bare SIGKILL", "what": "dead", **spread(taken)}


def next_start(runs: int) -> dict[str, Any]:
    """A call waits behind a stuck one: from the death of the one to the handler of the next, with a spare."""
    calls = Calls(size=1, spares=1)
    calls.value("echo", 0)
    taken = []
    for _ in range(runs):
        idle(calls)
        stuck = calls.start("spin", hard=LIMIT)
        waiting = calls.start("when")
        outcome = stuck.outcome()
        assert isinstance(outcome, TimedOut)
        dead_at = stuck.sent_at + LIMIT + outcome.dead_at
        taken.append(calls.unpickle(waiting.outcome()) - dead_at)
    calls.engine.close()
    return {"case": "spin, with a spare", "what": "dead to next handler", **spread(taken)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=40)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        rows = [bare_kill(runs)]
        rows += hard_limit("spin", runs=runs) + hard_limit("c_loop", runs=runs) + hard_limit("regex", runs=runs)
        rows += hard_limit("sleep_long", runs=runs)
        rows += hard_limit("child", runs=runs, fresh=fresh) + hard_limit("daemon", runs=runs, fresh=fresh)
        for kind in ("two_hundred", "storm", "storm_chain", "storm_sessions"):
            rows += with_company(kind, max(5, runs // 4))
        rows += spinners(runs)
        rows += [crash("leave", 3, runs=runs), crash("segfault", runs=runs), next_start(runs)]
    bare = rows[0]["p50"]
    report("limits", [{**row, "x": round(row["p50"] / bare, 1)} for row in rows])


if __name__ == "__main__":
    main()
