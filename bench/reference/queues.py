"""What a queue costs, and what it loses: throughput, enqueue, start on an idle worker; tasks counted after SIGKILL.

    told ──────────┐                 one task, on an idle worker
    sent │ enqueue │ start           clocks of the driver and of the handler, which are one clock
         └ `added` ┘

    begun, finished by task          of a batch whose child, or whose worker, is killed in the middle:
        finished 0: lost, or failed  whether its caller was told so, until SOON after the kill
        finished 2: run twice        begun 2 alone is a redelivery, which every system that loses nothing must make

After the kill the worker is started again whenever it is dead, as a supervisor of the machine does. All have one attempt: whose child
was killed fails, or is given to another child because its start did not count.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.reference import observer
from bench.reference.driven import Broken, Driven, outcome

STARTS, ADDS = 50, 200
BATCH, SOON, BEGIN = 20, 30.0, 30.0


def latencies(driven: Driven, quick: bool) -> dict[str, Any]:
    """Seconds, each of a task alone: until it is stored, until it starts, until its caller has the result."""
    starts, ends = [], []
    for number in range(STARTS // 5 if quick else STARTS):
        ledger = driven.folder / f"idle-{number}"
        found = outcome(driven.send("run", handler="next", ledger=str(ledger), limit=None), time.monotonic() + BEGIN)
        began = observer.look(ledger).start
        if found["word"] != "success" or began is None:
            raise Broken(f"{driven.name}: a task that does nothing was told {found['word']} {found['error']}")
        starts.append(began - found["sent"])
        ends.append(found["told"] - found["sent"])
    adds = [driven.ask("enqueue", count=1, size=100)["seconds"] for _ in range(ADDS // 5 if quick else ADDS)]
    return {"start": starts, "answer": ends, "add": adds}


def lose(driven: Driven, target: str) -> dict[str, Any]:
    """Kill a child or the worker while a batch runs, start the worker again, and count by ledgers: no system is asked what it lost."""
    ledgers = [driven.folder / f"batch-{number}" for number in range(BATCH)]
    answers = [driven.send("run", handler="brief", ledger=str(ledger), limit=20.0) for ledger in ledgers]
    if not observer.until(lambda: sum(map(finished, ledgers)) >= BATCH // 4, BEGIN):
        raise Broken(f"{driven.name}: a batch did not get on")
    if target == "child" and not observer.until(lambda: bool(latest(ledgers)), 5.0):
        raise Broken(f"{driven.name}: no task was running")
    killed = time.monotonic()
    for pid in driven.ask("processes")["supervisors"] if target == "worker" else filter(None, [latest(ledgers)]):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    restarts = 0

    def told() -> bool:
        nonlocal restarts
        restarts += driven.ask("restart")["started"]
        return all(answer.done() for answer in answers)

    observer.until(told, killed + SOON - time.monotonic(), 0.2)
    return {"target": target, "restarts": restarts, "back": time.monotonic() - killed, **count(ledgers, answers)}


def count(ledgers: Sequence[Path], answers: Sequence[Future[dict[str, Any]]]) -> dict[str, int]:
    """By ledgers what ran, by answers what was told of it. A task that failed and was told so is not lost."""
    begun = [observer.starts(_text(ledger)) for ledger in ledgers]
    done = [finished(ledger) for ledger in ledgers]
    words = [outcome(answer, 0.0)["word"] for answer in answers]
    ended = list(zip(done, words, strict=True))
    return {
        "tasks": len(ledgers),
        "lost": sum(not times and word in ("nothing", "success") for times, word in ended),
        "failed": sum(not times and word not in ("nothing", "success") for times, word in ended),
        "twice": sum(times > 1 for times in done),
        "redelivered": sum(times > 1 for times in begun),
        "untold": sum(bool(times) and word == "nothing" for times, word in ended),
    }


def finished(ledger: Path) -> int:
    return sum(line.startswith("end ") and line.endswith("\n") for line in _text(ledger).splitlines(keepends=True))


def latest(ledgers: Sequence[Path]) -> int:
    """Pid of the task that began last, and has the longest way to go."""
    found = [(ledger.start, ledger.pid) for path in ledgers if (ledger := observer.look(path)).start and not finished(path)]
    return max(found)[1] if found else 0


def _text(ledger: Path) -> str:
    return ledger.read_text() if ledger.exists() else ""
