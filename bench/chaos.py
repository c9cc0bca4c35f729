"""`kill -9` of a worker's launcher or core at random instants, two producers and a second worker going on; then the books are checked.

    python -m bench.chaos [--kills 200] [--seed N]

The judge is a ledger that handlers append to, and SQLite's own reading of the file, and uses nothing of stem_iso. It holds
    · each accepted task has one terminal state: none is lost
    · no task started more often than its attempts and redeliveries say; an at-most-once task that succeeded started once
    · a success has its end in the ledger
    · enough tasks were really redelivered (20 of 200 kills), `PRAGMA integrity_check` passes, no process of a handler is left
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bench.harness import Progress
from stem_iso.worker.owned_worker import OwnedWorker

READY, DELAYED, LEASED, SUCCEEDED, FAILED, CANCELLED = range(6)


class WorkerProcess:
    """A worker by command, started again when it ends."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.starts = 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        command = [sys.executable, "-m", "stem_iso.worker", "-A", "bench.chaos_app:app", "-c", "2", "--spares", "1", "-l", "warning"]
        log = (self.folder / f"{self.name}.log").open("ab")
        self.process = OwnedWorker(command, env=environment(self.folder), stdout=log, stderr=log, start_new_session=True)
        log.close()

    def core(self) -> int | None:
        """The launcher's child that is the core."""
        for pid in children(self.process.pid):
            try:
                if b"stem_iso: worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
            except OSError:
                continue
        return None

    def kill(self, dice: random.Random) -> str:
        """At an instant of its life: mostly while it works, now and then while it starts."""
        self.revive()
        end = time.monotonic() + dice.choice([0.2, 10, 10, 10])
        while time.monotonic() < end and self.process.poll() is None and len(children(self.process.pid)) < 4:
            time.sleep(0.02)
        time.sleep(dice.uniform(0, 0.8))
        core = self.core()
        who = dice.choice(["launcher", "core"]) if core else "launcher"
        try:
            os.kill(core if who == "core" and core else self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return "missed"
        if who == "launcher":
            self.process.wait()
        else:
            # Core and launcher killed in one instant is the one case in which a daemon of a handler may survive; it is not played here.
            time.sleep(0.3)
        return who

    def revive(self) -> None:
        if self.process.poll() is not None:
            self.start()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "STEM_ISO_CHAOS": str(folder)}


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def start_producer(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "bench.chaos_app"], env=environment(folder), stdin=subprocess.PIPE)


def unfinished(folder: Path) -> int:
    with sqlite3.connect(folder / "chaos.db", timeout=30) as store:
        return int(store.execute("SELECT count(*) FROM task WHERE state < 3").fetchone()[0])


def drain(folder: Path, workers: list[WorkerProcess]) -> None:
    progress = Progress()
    while left := unfinished(folder):
        progress.check(left, f"{left} tasks")
        for worker in workers:
            worker.revive()
        time.sleep(0.2)


def judge(folder: Path) -> dict[str, Any]:
    """Raises AssertionError with what does not add up."""
    accepted = dict(line.split() for line in (folder / "accepted").read_text().splitlines())
    lines = [line.split() for line in (folder / "ledger").read_text().splitlines()]
    starts = Counter(id for word, id, _ in lines if word == "start")
    ends = Counter(id for word, id, _ in lines if word == "end")
    with sqlite3.connect(folder / "chaos.db") as store:
        (integrity,) = store.execute("PRAGMA integrity_check").fetchone()
        rows = store.execute("SELECT id, name, state, reason, attempt, redeliveries FROM task").fetchall()
        dead = {id for (id,) in store.execute("SELECT id FROM dead")}
    assert integrity == "ok", integrity
    known = {row[0] for row in rows}
    assert set(accepted) <= known, f"lost: {sorted(set(accepted) - known)}"
    for id, name, state, reason, attempt, redeliveries in rows:
        found = f"{name} {id}: state {state} ({reason}), attempt {attempt}, redelivered {redeliveries}, started {starts[id]}"
        assert state in (SUCCEEDED, FAILED, CANCELLED), found
        assert starts[id] <= attempt + 1 + redeliveries, found
        assert (state == FAILED) == (id in dead), found
        if state == SUCCEEDED:
            assert ends[id] >= 1, found
            assert name != "chaos.once" or starts[id] == 1, found
    left = [pid for _, _, pid in lines if alive(int(pid))]
    assert not left, f"alive: {left}"
    return {
        "tasks": len(rows),
        "outcomes": Counter(
            f"{name} {('succeeded', 'failed', 'cancelled')[state - 3]} {reason or ''}".strip() for _, name, state, reason, *_ in rows
        ),
        "redelivered": sum(1 for row in rows if row[5]),
        "starts": sum(starts.values()),
    }


def alive(pid: int) -> bool:
    try:
        return b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes() or b"chaos." in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def run(folder: Path, kills: int, dice: random.Random) -> dict[str, Any]:
    workers = [WorkerProcess(folder, "victim"), WorkerProcess(folder, "second")]
    producers = [start_producer(folder) for _ in range(2)]
    killed: Counter[str] = Counter()
    try:
        while sum(killed.values()) - killed["missed"] < kills:
            killed[workers[0].kill(dice)] += 1
        for producer in producers:
            producer.communicate(b"stop\n")
        drain(folder, workers)
        codes = [worker.stop() for worker in workers]
    finally:
        for process in (*producers, *(worker.process for worker in workers)):
            if process.poll() is None:
                process.kill()
                process.wait()
    return {**judge(folder), "killed": killed, "worker starts": workers[0].starts, "exit codes": codes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="stem_iso-chaos-"))
    print(f"store, ledger and logs: {folder}", flush=True)
    found = run(folder, options.kills, random.Random(options.seed))
    shutil.rmtree(folder)  # kept where the books did not add up
    enough = options.kills // 10
    print(json.dumps(found, indent=1))
    if found["redelivered"] < enough:
        sys.exit(f"only {found['redelivered']} tasks were redelivered, {enough} are needed to have tried anything")


if __name__ == "__main__":
    main()
