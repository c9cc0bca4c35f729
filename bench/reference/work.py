"""What ordinary work costs: pool and queue (a call), payload (a call by size), scale (isolates, and tasks queued), memory; chaos, loss.

Each measure is a function of the stand, the chosen systems, and whether it must be quick; each line that it adds names system, settings and
what was varied. Systems take turns in random order within each round, with a control before each turn. A system that cannot do what a
measure needs is left out of it, and one that breaks is written down as broken.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import bench.systems as systems
from bench.reference import observer, queues
from bench.reference.driven import Broken, Driven, outcome
from bench.reference.observer import Watch

Chosen = Sequence[tuple[str, str]]
CALLS, ROUNDS = 2000, 10
SIZES = (1 << 10, 16 << 10, 256 << 10, 4 << 20, 32 << 20)
WORKERS, DEPTHS = (1, 2, 4, 8, 16, 32, 64), (1, 100, 10_000, 100_000, 1_000_000)
PAYLOAD = 100  # bytes of a small call
LONGEST, FEWEST = 20.0, 20  # seconds of a turn, for which a slow system has fewer calls, but not less than this


def pool(stand: Any, chosen: Chosen, quick: bool) -> None:
    """Calls a second, two at a time, by wall clock, and processor seconds of the caller."""
    _calls(stand, _of(chosen, "pool"), "pool", quick)


def queue(stand: Any, chosen: Chosen, quick: bool) -> None:
    """Tasks enqueued, run and answered a second, two at a time; and seconds of one alone, on a worker that idles."""
    _calls(stand, _of(chosen, "queue"), "queue", quick)
    for driven in _turns(stand, _of(chosen, "queue"), 1 if quick else ROUNDS, "latency"):
        with _broken(stand, driven, "latency"):
            stand.samples.add("latency", **_who(driven), **queues.latencies(driven, quick))


def _calls(stand: Any, chosen: Chosen, kind: str, quick: bool) -> None:
    count = CALLS // 10 if quick else CALLS
    for driven in _turns(stand, chosen, 1 if quick else ROUNDS, kind):
        with _broken(stand, driven, kind):
            first = driven.ask("echo", count=count // 10, size=PAYLOAD)["seconds"]
            fit = int(min(count, max(FEWEST, count // 10 / first * LONGEST)))
            stand.samples.add(kind, **_who(driven), count=fit, **_echo(driven, fit, PAYLOAD))


def payload(stand: Any, chosen: Chosen, quick: bool) -> None:
    """Seconds of a call that is given, and returns, so many bytes."""
    for driven in _turns(stand, chosen, 1 if quick else ROUNDS, "payload"):
        for size in SIZES[:-1] if quick else SIZES:
            count = max(3, min(50, (16 << 20) // size))
            stand.samples.add("payload", **_who(driven), size=size, count=count, **_echo(driven, count, size))


def scale(stand: Any, chosen: Chosen, quick: bool) -> None:
    """Calls a second against processes, and seconds to enqueue against what is queued already."""
    for workers in WORKERS[:4] if quick else WORKERS:
        for driven in _turns(stand, _of(chosen, "pool"), 1 if quick else 3, "scale", workers):
            driven.ask("echo", count=workers * 4, size=PAYLOAD)
            count = 200 if quick else CALLS
            stand.samples.add("scale", **_who(driven), workers=workers, count=count, **_echo(driven, count, PAYLOAD))
    for driven in _turns(stand, _of(chosen, "queue"), 1, "scale"):
        queued = 0
        for depth in DEPTHS[:3] if quick else DEPTHS:
            began = queued
            queued = depth
            with suppress(Broken):
                found = driven.ask("enqueue", bound=1800, count=depth - began, size=PAYLOAD)
                stand.samples.add("depth", **_who(driven), depth=depth, added=depth - began, seconds=found["seconds"])


def memory(stand: Any, chosen: Chosen, quick: bool) -> None:
    """Proportional memory of an idle worker: of all processes of the system, less those of the same with one worker, by worker."""
    for driven in _turns(stand, chosen, 1 if quick else 3, "memory", 1):
        stand.samples.add("memory", **_who(driven), workers=1, bytes=_settled(driven))
    for driven in _turns(stand, chosen, 1 if quick else 3, "memory", 5):
        stand.samples.add("memory", **_who(driven), workers=5, bytes=_settled(driven))


def chaos(stand: Any, chosen: Chosen, quick: bool) -> None:
    """SIGKILL of the child that runs a task, of the worker, of the program: what the caller is told, who is left, how often a task runs."""
    targets = ("child", "program", "worker")
    for target in targets:
        names = chosen if target == "child" else _of(chosen, "queue" if target == "worker" else "pool")
        for driven in _turns(stand, names, 2 if quick else 30, "chaos"):
            with _broken(stand, driven, "chaos"):
                _kill(stand, driven, target)


def loss(stand: Any, chosen: Chosen, quick: bool) -> None:
    """Tasks of a batch in a queue, counted after SIGKILL of a child that runs one, and of the worker: lost, run twice, never told of."""
    for target in ("child", "worker"):
        for driven in _turns(stand, _of(chosen, "queue"), 1 if quick else 10, "loss"):
            with _broken(stand, driven, "loss"):
                stand.samples.add("loss", **_who(driven), **queues.lose(driven, target))


def _kill(stand: Any, driven: Driven, target: str) -> None:
    ledger = driven.folder / "killed"
    answer = driven.send("run", handler="daemon", ledger=str(ledger), limit=20.0)
    watch = Watch(ledger, 10.0)
    began = watch.started()
    if began is None or not observer.until(lambda: bool(watch.ledger.children), 5.0):
        raise Broken("the task did not begin")
    pids = {"child": [began.pid], "program": [driven.process.pid], "worker": driven.ask("processes")["supervisors"]}[target]
    killed = time.monotonic()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    ended = outcome(answer, killed + (4.0 if target == "child" else 1.0))
    time.sleep(max(0.0, killed + 1.0 - time.monotonic()))
    # A queue runs the task again, and that run is no survivor.
    noted = {**began.children, began.pid: began.start or 0.0} | watch.ledger.children
    again = observer.starts(ledger.read_text())
    found = observer.left(observer.Ledger(children={pid: at for pid, at in noted.items() if at <= killed}))
    told = None if ended["told"] is None else ended["told"] - killed
    stand.samples.add(
        "chaos",
        **_who(driven),
        target=target,
        told=told,
        word=ended["word"],
        left=len(found.alive),
        zombies=len(found.zombies),
        begun=again,
    )
    watch.bound(0.0)
    observer.kill(observer.left(watch.ledger).alive)


@contextmanager
def _broken(stand: Any, driven: Driven, measure: str) -> Iterator[None]:
    """One that cannot do it is written down, and the next has its turn."""
    try:
        yield
    except Broken as error:
        stand.samples.add("broken", **_who(driven), measure=measure, error=str(error))


def _of(chosen: Chosen, kind: str) -> Chosen:
    return [(name, settings) for name, settings in chosen if systems.find(name).kind == kind]


def _turns(stand: Any, chosen: Chosen, rounds: int, measure: str, workers: int = 2) -> Iterator[Driven]:
    for number in range(rounds):
        order = list(chosen)
        stand.dice.shuffle(order)
        for name, settings in order:
            print(f"{measure}, round {number + 1}: {name} ({settings}), {workers} at a time", file=sys.stderr, flush=True)
            stand.control(round=number, system=name)
            try:
                driven = stand.start(name, settings, workers)
            except Broken as error:
                stand.samples.add("broken", system=name, settings=settings, measure=measure, error=str(error))
                continue
            try:
                yield driven
            finally:
                stand.end(driven)


def _echo(driven: Driven, count: int, size: int) -> dict[str, Any]:
    before = _processor_seconds(driven)
    try:
        found = driven.ask("echo", count=count, size=size)
    except Broken as error:
        return {"seconds": None, "error": str(error)[:300]}
    return {"seconds": found["seconds"], "cpu": _processor_seconds(driven) - before}


def _who(driven: Driven) -> dict[str, str]:
    return {"system": driven.name, "settings": driven.settings}


def _processes(driven: Driven) -> set[int]:
    others = set(driven.ask("processes")["others"])
    return {driven.process.pid, *others}.union(*(observer.descendants(pid) for pid in {driven.process.pid, *others}))


def _processor_seconds(driven: Driven) -> float:
    """Of all that live; what ended since is counted by its parent, where that waited for it."""
    total = 0.0
    for pid in _processes(driven):
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(value) for value in fields[11:13]) / os.sysconf("SC_CLK_TCK")
    return total


def _settled(driven: Driven) -> int:
    """Bytes, after each worker has run something and a second has passed."""
    driven.ask("echo", count=20, size=PAYLOAD)
    time.sleep(1.0)
    total = 0
    for pid in _processes(driven):
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    return total


MEASURES: dict[str, Callable[[Any, Chosen, bool], None]] = {
    "pool": pool, "queue": queue, "payload": payload, "scale": scale, "memory": memory, "chaos": chaos, "loss": loss,
}  # fmt: skip
