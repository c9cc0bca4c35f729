"""Calls of random length around their limit, with the core stopped at random: the shared row's protocol under fire.

    python -m tests.isolate.race CALLS FAULT

FAULT plants one: none · core-skips-verdict · keeper-skips-second-look · no-verdict. The core never enforces by itself here, and
the keeper's margin is 1 ms, so that every kill is the keeper's and lands beside a reply.
Prints one JSON line: what was counted, and every anomaly.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from stem_iso.isolate import shared_row
from stem_iso.isolate.engine.isolate import Isolate
from stem_iso.isolate.engine.isolates import Isolates
from stem_iso.isolate.engine.lifecycle import Cause
from stem_iso.isolate.keeper import keeper
from stem_iso.outcome import Crashed, Succeeded, TimedOut
from tests.isolate.calling import Calls, Recorder

LIMIT = 0.004
ROUND = 60  # calls between two looks at what has become of them
MOST = 4  # times as many calls as were asked for, at most
SEED = 20_26


def run_keeper(fd: int, core: int, fault: str) -> None:
    shared_row.MARGIN = 0.001
    if fault == "no-verdict":
        shared_row.Table.set_verdict = lambda self, number, verdict: None  # type: ignore[method-assign]
    judge, stands = shared_row.judge, shared_row.stands

    # The two windows of the protocol, between its looks and what follows them, are a millisecond wide here instead of a microsecond.
    def slow_judge(row: shared_row.SharedRow, now: float) -> shared_row.Enforce | shared_row.CheckAgain:
        decision = judge(row, now)
        if isinstance(decision, shared_row.Enforce):
            threading.Event().wait(0.001)
        return decision

    def slow_stands(before: shared_row.SharedRow, after: shared_row.SharedRow) -> bool:
        if fault != "keeper-skips-second-look" and not stands(before, after):
            return False
        threading.Event().wait(0.001)
        return True

    shared_row.judge, shared_row.stands = slow_judge, slow_stands
    keeper.main(fd, core)


def run_core(calls_wanted: int, fault: str, ledger: Path) -> dict[str, Any]:
    shared_row.MARGIN = 0.001
    kill = Isolates._kill

    def kill_but_for_limits(self: Isolates, isolate: Isolate, cause: Cause) -> None:
        if cause is not Cause.LIMIT:
            kill(self, isolate, cause)

    Isolates._kill = kill_but_for_limits  # type: ignore[method-assign]
    if fault == "core-skips-verdict":
        send = shared_row.Table.send
        shared_row.Table.send = lambda self, *args: send(self, *args) or True  # type: ignore[method-assign]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.isolate.race", "keeper", str(theirs.fileno()), str(os.getpid()), fault]
    guard = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    theirs.close()
    calls = Calls(size=2, spares=2, keeper_socket=ours)
    dice = random.Random(SEED)
    done: list[Recorder] = []
    while len(done) < MOST * calls_wanted and not enough(done, calls_wanted, fault, ledger):
        done += play(calls, range(len(done), len(done) + ROUND), dice, ledger)
    calls.engine.close()
    guard.wait()
    return judge_all(done, ledger)


def enough(done: list[Recorder], wanted: int, fault: str, ledger: Path) -> bool:
    """A planted fault need not be found twice. Without one the race is over when both endings have had their share: on a machine that is
    busy elsewhere the keeper comes late, and more must be played until it has killed often enough."""
    if not done or (fault == "none" and len(done) < wanted):
        return False
    found = judge_all(done, ledger)
    if fault != "none":
        return bool(found["anomalies"]) or len(done) >= wanted
    return found["outcomes"]["TimedOut"] >= wanted // 20 and found["outcomes"]["Succeeded"] >= wanted // 10


def play(calls: Calls, numbers: range, dice: random.Random, ledger: Path) -> list[Recorder]:
    done: list[Recorder] = []
    flying: list[Recorder] = []
    for number in numbers:
        # One in four has all the time it wants: a call that is killed for the limit of the one before it shows up as a crash of these.
        hard = None if number % 4 == 0 else LIMIT
        flying.append(calls.start("random_length", str(ledger), number, dice.uniform(0, 2 * LIMIT), hard=hard))
        if len(flying) >= 3:
            done.append(flying.pop(0))
            done[-1].outcome()
    for last in flying:
        last.outcome()
    return done + flying


def judge_all(done: list[Recorder], ledger: Path) -> dict[str, Any]:
    lines = Counter(ledger.read_text().split("\n")[:-1])
    anomalies: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for number, recorder in enumerate(done):
        outcome = recorder.outcomes[0]
        kinds[type(outcome).__name__] += 1
        anomalies["ended more than once"] += len(recorder.outcomes) != 1
        anomalies["ran twice"] += lines[f"start {number}"] > 1
        anomalies["named a crash"] += isinstance(outcome, Crashed)
        anomalies["success without its line"] += isinstance(outcome, Succeeded) and not lines[f"end {number}"]
        early = isinstance(outcome, TimedOut) and (number % 4 == 0 or outcome.dead_at < 0)
        anomalies["killed for another's limit"] += early
    return {"calls": len(done), "outcomes": kinds, "anomalies": {what: count for what, count in anomalies.items() if count}}


def stop_at_random(core: subprocess.Popen[str], stops: Counter[str]) -> None:
    dice, waiter = random.Random(SEED + 1), threading.Event()
    while core.poll() is None:
        waiter.wait(dice.uniform(0, 0.04))
        core.send_signal(signal.SIGSTOP)
        waiter.wait(dice.uniform(0, 0.012))
        core.send_signal(signal.SIGCONT)
        stops["stops"] += 1


def race(calls: int, fault: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.isolate.race", "core", str(calls), fault, f"{folder}/ledger"]
        core = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        stops: Counter[str] = Counter()
        threading.Thread(target=stop_at_random, args=(core, stops), daemon=True).start()
        output = core.communicate()[0]
        found: dict[str, Any] = json.loads(output)
        return {**found, **stops, "fault": fault}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["keeper", fd, core_pid, planted]:
            run_keeper(int(fd), int(core_pid), planted)
        case ["core", count, planted, path]:
            print(json.dumps(run_core(int(count), planted, Path(path))))
        case [count, planted]:
            print(json.dumps(race(int(count), planted)))
        case _:
            sys.exit("usage: python -m tests.isolate.race CALLS FAULT")
