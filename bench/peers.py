"""A hard limit of half a second in other pools, beside stem_iso's isolates, in one run: reported when, dead when, and who survived.

    python -m bench.peers [--runs 10]

The function is the same in all (`bench.stuck`). Milliseconds after the limit, which counts from the function's first act, so that nobody is
charged for what lies before it; for a crash, from there. "reported": the caller has the exception; "dead": the process is, by pidfd;
"survivors": what the function started and still lives 200 ms after both, of those runs in which it could; this bench then kills it.

pebble: ProcessPool.schedule(timeout=)    billiard: Pool.apply_async(timeout=), which is Celery's prefork pool without Celery's loop
loky, multiprocessing.Pool: they know no limits; how they report a crash is measured
A peer's part is bounded: a call that is not reported within four seconds is "not in 4 s", and three runs suffice for what takes a second.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import select
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Protocol

from bench import stuck
from bench.harness import percentile, report
from bench.limits import idle
from stem_iso.isolate.keeper import process_tree
from tests.isolate.calling import BOUND, Calls, eventually

LIMIT, PATIENCE, SETTLE = 0.5, 4.0, 0.2
CASES = ("spin", "C code", "sleep", "child", "daemon", "daemon, no environment", "crash")
SLOW = 0.9  # seconds: what takes longer is not measured ten times


class Peer(Protocol):
    """Runs one call at a time; `run` returns when its end has been reported, and raises TimeoutError after PATIENCE."""

    def run(self, case: str, ledger: str) -> None: ...

    def close(self) -> None: ...


class Isolates:
    def __init__(self) -> None:
        self._calls = Calls(size=1, spares=1, target="bench.stuck:boot")

    def run(self, case: str, ledger: str) -> None:
        idle(self._calls)
        self._calls.start("run", case, ledger, hard=LIMIT).outcome()

    def close(self) -> None:
        self._calls.engine.close()


class Pebble:
    def __init__(self) -> None:
        from pebble import ProcessPool

        self._pool: Any = ProcessPool(max_workers=1)

    def run(self, case: str, ledger: str) -> None:
        future = self._pool.schedule(stuck.run, args=(case, ledger), timeout=LIMIT)
        limit, error = monotonic() + PATIENCE + LIMIT, future.exception
        with suppress(Exception):
            error(timeout=PATIENCE + LIMIT)
        if monotonic() >= limit:
            raise TimeoutError

    def close(self) -> None:
        self._pool.stop()
        self._pool.join()


class Billiard:
    def __init__(self) -> None:
        from billiard.pool import Pool

        self._pool: Any = Pool(1, enable_timeouts=True)

    def run(self, case: str, ledger: str) -> None:
        waiting(self._pool.apply_async(stuck.run, (case, ledger), timeout=LIMIT))

    def close(self) -> None:
        self._pool.terminate()


class Stdlib:
    def __init__(self) -> None:
        from multiprocessing import get_context

        self._pool = get_context("fork").Pool(1)

    def run(self, case: str, ledger: str) -> None:
        waiting(self._pool.apply_async(stuck.run, (case, ledger)))

    def close(self) -> None:
        self._pool.terminate()


class Loky:
    def __init__(self) -> None:
        from loky import ProcessPoolExecutor

        self._pool: Any = ProcessPoolExecutor(max_workers=1)

    def run(self, case: str, ledger: str) -> None:
        self._pool.submit(stuck.run, case, ledger).exception(timeout=PATIENCE)
        self.close()
        self.__init__()  # type: ignore[misc]  # one that is broken stays so

    def close(self) -> None:
        self._pool.shutdown(kill_workers=True)


def waiting(result: Any) -> None:
    result.wait(PATIENCE + LIMIT)
    if not result.ready():
        raise TimeoutError


PEERS: dict[str, tuple[Callable[[], Peer], bool]] = {  # and whether it knows limits
    "stem_iso": (Isolates, True),
    "pebble": (Pebble, True),
    "billiard": (Billiard, True),
    "loky": (Loky, False),
    "multiprocessing.Pool": (Stdlib, False),
}


@dataclass
class Run:
    """Seconds after the limit (a crash: after the first act); None: not within PATIENCE."""

    reported: float | None
    dead: float | None
    started: int
    survivors: int


def started(ledger: Path) -> tuple[int, float, list[int]]:
    """Pid of the function's process, its first act, and whom it started."""
    eventually(lambda: ledger.exists() and "start" in ledger.read_text(), "the function did not start")
    lines = [line.split() for line in ledger.read_text().splitlines()]
    (pid, at), *_ = [(int(line[1]), float(line[2])) for line in lines if line[0] == "start"]
    return pid, at, [int(line[1]) for line in lines if line[0] == "child"]


def watch(ledger: Path, seen: dict[str, float]) -> None:
    pid, _, _ = started(ledger)
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll((PATIENCE + LIMIT) * 1000):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            return
        os.close(pidfd)
    seen["dead"] = monotonic()


def one(peer: Peer, case: str, ledger: Path) -> Run:
    seen: dict[str, float] = {}
    watcher = threading.Thread(target=watch, args=(ledger, seen))
    watcher.start()
    try:
        peer.run(case, str(ledger))
        seen["reported"] = monotonic()
    except TimeoutError:
        pass
    watcher.join(BOUND)
    sleep(SETTLE)
    _, at, children = started(ledger)
    alive = [pid for pid in children if not process_tree.is_dead(pid)]
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    due = at if case == "crash" else at + LIMIT
    return Run(*(seen[what] - due if what in seen else None for what in ("reported", "dead")), started=len(children), survivors=len(alive))


def runs_of(make: Callable[[], Peer], case: str, wanted: int, folder: Path) -> Iterator[Run]:
    peer = make()
    with closing(peer):
        for number in range(wanted):
            found = one(peer, case, folder / f"{id(peer)}-{number}")
            yield found
            if found.reported is None:
                return  # its pool may be poisoned
            if found.reported > SLOW and number >= 2:
                return


def row(name: str, case: str, found: list[Run]) -> dict[str, Any]:
    cells: dict[str, Any] = {"case": case, "peer": name, "n": len(found)}
    for what in ("reported", "dead"):
        values = [getattr(run, what) for run in found]
        known = [value for value in values if value is not None]
        cells[f"{what} p50"] = round(percentile(known, 0.5) * 1e3, 1) if len(known) == len(values) else f"not in {PATIENCE:g} s"
        cells["max" if what == "reported" else "max "] = round(max(known) * 1e3, 1) if len(known) == len(values) else ""
    return {
        **cells,
        "survivors": f"{sum(run.survivors for run in found)} of {sum(run.started for run in found)}" if case in stuck.PROGRAMS else "",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    rows = []
    for case in CASES:
        for name, (make, limits) in PEERS.items():
            if name in ("pebble", "billiard") and importlib.util.find_spec(name) is None:
                rows.append({"case": case, "peer": name, "reported p50": "not installed"})
            elif case != "crash" and not limits:
                rows.append({"case": case, "peer": name, "reported p50": "knows no limits"})
            else:
                with tempfile.TemporaryDirectory() as folder:
                    rows.append(row(name, case, list(runs_of(make, case, runs, Path(folder)))))
    load = os.getloadavg()[0]
    report("peers", [*rows, {"case": "load average of the machine", "peer": round(load, 1)}])


if __name__ == "__main__":
    main()
