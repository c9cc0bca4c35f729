"""What a queue costs, and what it loses: throughput, enqueue, start on an idle worker; tasks counted after SIGKILL.

    told ──────────┐                 one task, on an idle worker
    sent │ enqueue │ start           clocks of the driver and of the handler, which are one clock
         └ `added` ┘

    begun, finished by task          of a batch whose child, or whose worker, is killed in the middle:
        finished 0: lost             until SOON after the kill; a system that gives back later is told apart by its own documents
        finished 2: run twice        begun 2 alone is a redelivery, which every system that loses nothing must make

After the kill the worker is started again where it is dead, as a supervisor of the machine does.
"""

from __future__ import annotations

import os
import signal
import time
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
    victims = driven.ask("processes")["supervisors"] if target == "worker" else running(ledgers)[:1]
    killed = time.monotonic()
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    restarted = observer.until(lambda: bool(driven.ask("restart")["started"]), 2.0, 0.1)  # it dies of its only child a little later
    observer.until(lambda: all(map(finished, ledgers)), max(0.0, killed + SOON - time.monotonic()))
    return {"target": target, "restarted": restarted, "back": time.monotonic() - killed, **count(ledgers, answers)}


def count(ledgers: list[Path], answers: list[Future[dict[str, Any]]]) -> dict[str, int]:
    begun = [observer.starts(_text(ledger)) for ledger in ledgers]
    done = [finished(ledger) for ledger in ledgers]
    words = [outcome(answer, time.monotonic() + 0.5)["word"] for answer in answers]
    return {
        "tasks": len(ledgers),
        "lost": done.count(0),
        "twice": sum(times > 1 for times in done),
        "redelivered": sum(times > 1 for times in begun),
        "untold": words.count("nothing"),
    }


def finished(ledger: Path) -> int:
    return sum(line.startswith("end ") and line.endswith("\n") for line in _text(ledger).splitlines(keepends=True))


def running(ledgers: list[Path]) -> list[int]:
    return [observer.look(ledger).pid for ledger in ledgers if observer.look(ledger).pid and not finished(ledger)]


def _text(ledger: Path) -> str:
    return ledger.read_text() if ledger.exists() else ""
