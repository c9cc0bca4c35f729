"""How far past its memory limit a call gets before it is dead, by how fast it grows; and what the watch costs.

    python -m bench.memory [--runs 15]

"past its limit": what the process held when it died, less the limit, as the handler itself noted it MiB by MiB in a file; "reported": what
the error says was in use. The physical limit beside it: how far the same handler gets after a SIGKILL is sent to it.
"""

from __future__ import annotations

import argparse
import mmap
import os
import signal
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic, process_time, sleep
from typing import Any

from bench.harness import report, spread
from stem_iso.outcome import Crashed, MemoryExceeded
from tests.isolate.calling import Calls, eventually

MIB = 1 << 20
LIMIT = 512 * MIB


class Ledger:
    """Resident bytes, as the handler last noted them."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(16))
        self.path = str(path)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 16)

    def read(self) -> tuple[int, int]:
        """Bytes in use, and the pid."""
        used, pid = struct.unpack("<QQ", self._map[:16])
        return used, pid


def one(calls: Calls, path: Path, rate: float) -> tuple[float, float]:
    ledger = Ledger(path)
    outcome = calls.run("devour_noting", ledger.path, rate, 4 * LIMIT, memory=LIMIT)
    assert isinstance(outcome, MemoryExceeded), outcome
    return (ledger.read()[0] - LIMIT) / MIB, (outcome.rss - LIMIT) / MIB


def after_a_signal(calls: Calls, path: Path, rate: float) -> float:
    ledger = Ledger(path)
    recorder = calls.start("devour_noting", ledger.path, rate, 4 * LIMIT)
    eventually(lambda: ledger.read()[0] > LIMIT // 2, "it does not grow", 10)
    at, pid = ledger.read()
    os.kill(pid, signal.SIGKILL)
    assert isinstance(recorder.outcome(), Crashed)
    return (ledger.read()[0] - at) / MIB


def cost(calls: Calls, path: Path, hold: int, seconds: float = 2.0) -> dict[str, Any]:
    ledger = Ledger(path)
    recorder = calls.start("devour_noting", ledger.path, 8 * 1024.0, hold, seconds + 2, memory=LIMIT)
    eventually(lambda: ledger.read()[0] >= hold, "it does not grow", 10)
    sleep(0.1)
    began, used = monotonic(), process_time()
    sleep(seconds)
    share = (process_time() - used) / (monotonic() - began)
    recorder.outcome()
    return {
        "case": f"watching a call {(LIMIT - hold) / MIB:g} MiB below its limit",
        "what": "CPU, % of a core",
        "p50": round(share * 100, 2),
    }


def rows(case: str, runs: int, each: Callable[[Path], tuple[float, ...]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        found = [each(Path(folder) / str(number)) for number in range(runs)]
    return [{"case": case, "what": name, **spread(values, 1, 1)} for name, values in zip(names, zip(*found, strict=True), strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    calls, table = Calls(size=1, spares=1), []
    columns = ("past its limit, MiB", "reported, MiB past it")
    for name, rate in (("256 MiB/s", 256.0), ("1 GiB/s", 1024.0), ("as fast as it can", 1e9)):
        table += rows(name, runs, lambda path, rate=rate: one(calls, path, rate), columns)
        table += rows(name, runs, lambda path, rate=rate: (after_a_signal(calls, path, rate),), ("after a bare SIGKILL, MiB",))
    with tempfile.TemporaryDirectory() as folder:
        table += [cost(calls, Path(folder) / str(hold), hold) for hold in (64 * MIB, LIMIT - 100 * MIB, LIMIT - 2 * MIB)]
    calls.engine.close()
    report("memory", table)


if __name__ == "__main__":
    main()
