"""How soon a task begins again when its worker is killed whole (SIGKILL of launcher and core in one instant), on both brokers.

    python -m bench.takeover [--rounds 10]

    beside    another worker of the machine is at work, its isolates booted: from the kill until the task is redelivered, and begins again
    after     a new worker is started behind the kill: from the kill, and from "ready" (its first line of log), to the same two

The lease is the default one, of a minute: nothing here waits for its end. What "after" takes before "ready" is the start of a worker: two
interpreters and the application. After that its first isolate is still booting, which the next start waits for as well.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from bench.harness import report, spread
from stem_iso import Stem, TaskHandle
from stem_iso.isolate.keeper import process_tree
from tests.servers.finding import binaries
from tests.servers.server import Server

app = Stem(os.environ.get("STEM_ISO_TAKEOVER_BROKER", "memory://"))
ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 50.0  # seconds: less than a lease, so that no figure is a lease's end


@app.task(name="takeover.hold", isolate=True)
def hold(ledger: str) -> None:
    """Says when it began. The first delivery lasts until it is killed, the next one ends."""
    with open(ledger, "a") as file:
        file.write(f"{os.getpid()} {monotonic()}\n")
    if len(Path(ledger).read_text().splitlines()) == 1:
        time.sleep(1000)


class Worker:
    def __init__(self, broker: str) -> None:
        command = [sys.executable, "-m", "stem_iso.worker", "-A", "bench.takeover:app", "-c", "1", "-l", "info"]
        environment = {**os.environ, "STEM_ISO_TAKEOVER_BROKER": broker}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def ready(self) -> float:
        """When it said so. The few lines that follow fit into the pipe."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if ": broker " in line:
                return monotonic()
        raise AssertionError("the worker did not start")

    def below(self) -> set[int]:
        found, left = set[int](), [self.process.pid]
        while left:
            children = process_tree.children(left.pop())
            found |= {*children}
            left += children
        return found

    def kill(self) -> float:
        """Whole; when."""
        core = next(pid for pid in process_tree.children(self.process.pid) if process_tree.title(pid).startswith("stem_iso: worker"))
        at = monotonic()
        for pid in (self.process.pid, core):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        return at

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
        self.process.wait()


@contextmanager
def team(broker: str, size: int) -> Iterator[list[Worker]]:
    """Workers that are ready; all of the list are stopped at the end."""
    workers = [Worker(broker) for _ in range(size)]
    try:
        for each in workers:
            each.ready()
        yield workers
    finally:
        for each in workers:
            each.stop()


def start(ledger: Path, number: int) -> tuple[int, float]:
    """The pid and time of the `number`-th start."""
    deadline = monotonic() + PATIENCE
    while monotonic() < deadline:
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        if len(lines) >= number:
            pid, at = lines[number - 1].split()
            return int(pid), float(at)
        time.sleep(0.001)
    raise AssertionError(f"start {number} did not come within {PATIENCE:g} s")


def redelivered(handle: TaskHandle[Any]) -> float:
    """When its lease had been taken."""
    deadline = monotonic() + PATIENCE
    while handle.status().redeliveries == 0:
        assert monotonic() < deadline, "nobody took the lease"
        time.sleep(0.005)
    return monotonic()


def warm(producer: Stem, folder: Path, name: str) -> None:
    """Returns when an isolate has run something: a ledger with a line ends the task at once."""
    ledger = folder / name
    ledger.write_text("0 0\n")
    producer.enqueue("takeover.hold", {"ledger": str(ledger)}).result(timeout=PATIENCE)


def beside(producer: Stem, folder: Path, rounds: int) -> list[dict[str, float]]:
    found = []
    with team(producer.broker, 2) as workers:
        for number in range(rounds):
            ledger = folder / f"beside-{number}"
            handle = producer.enqueue("takeover.hold", {"ledger": str(ledger)})
            pid, _ = start(ledger, 1)
            holder = next(each for each in workers if pid in each.below())
            warm(producer, folder, f"warm-{number}")  # in the other one: the first is busy
            killed = holder.kill()
            taken = redelivered(handle)
            found.append({"redelivered": taken - killed, "begun": start(ledger, 2)[1] - killed})
            handle.result(timeout=PATIENCE)
            workers.remove(holder)
            workers.append(Worker(producer.broker))
            workers[-1].ready()
    return found


def after(producer: Stem, folder: Path, rounds: int) -> list[dict[str, float]]:
    found = []
    with team(producer.broker, 1) as workers:
        for number in range(rounds):
            ledger = folder / f"after-{number}"
            handle = producer.enqueue("takeover.hold", {"ledger": str(ledger)})
            start(ledger, 1)
            killed = workers.pop().kill()
            workers.append(Worker(producer.broker))
            ready = workers[-1].ready()
            taken, begun = redelivered(handle), start(ledger, 2)[1]
            times = {"ready": ready - killed, "redelivered": taken - killed, "begun": begun - killed}
            found.append(times | {"ready to redelivered": taken - ready, "ready to begun": begun - ready})
            handle.result(timeout=PATIENCE)
    return found


def rows(name: str, broker: str, rounds: int) -> list[dict[str, object]]:
    producer = Stem(broker)
    with tempfile.TemporaryDirectory() as folder:
        measured = {"beside": beside(producer, Path(folder), rounds), "after": after(producer, Path(folder), rounds)}
    producer.close()
    return [
        {"broker": name, "when": when, "from the kill to, ms": what, **spread([each[what] for each in found], digits=0)}
        for when, found in measured.items()
        for what in found[0]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        found = rows("SQLite", f"sqlite:///{folder}/jobs.db", rounds)
    for binary in binaries()[:1]:
        server = Server(binary)
        try:
            found += rows(f"Redis {binary.name}", server.url, rounds)
        finally:
            server.close()
    report("takeover", found)


if __name__ == "__main__":
    main()
