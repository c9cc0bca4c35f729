"""How soon all is dead when the core is stopped, its GIL held, or a guard is killed; handlers spin, loop in C, have a child, a daemon.

    python -m bench.guards [--runs 20]

Core stopped, main thread busy: from the limit to the last death of the four trees. Killed: from the SIGKILL to the last death, the guard's
own included.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import tempfile
from pathlib import Path
from time import monotonic
from typing import Any

from bench.harness import report, spread
from tests.isolate.calling import pid_in
from tests.isolate.test_deaths_of_the_guards import NAMES, Program


def last_death(pids: list[int]) -> float:
    """When the last of them was dead; watched by pidfd, so that nothing is polled."""
    poll, open_fds = select.poll(), set()
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        open_fds.add(fd)
        poll.register(fd, select.POLLIN)
    while open_fds:
        for fd, _ in poll.poll():
            poll.unregister(fd)
            open_fds.discard(fd)
            os.close(fd)
    return monotonic()


def core_stopped(folder: Path) -> float:
    before = monotonic()
    program = Program(folder, hard=1.0)
    victims = [pid_in(folder / name) for name in NAMES]
    os.kill(program.pids["core"], signal.SIGSTOP)
    assert monotonic() - before < 10
    dead = last_death(victims)
    os.kill(program.pids["core"], signal.SIGCONT)
    report = [program.read() for _ in NAMES]
    program.process.wait()
    assert all(each["timed_out"] for each in report), report
    return dead - max(each["limit_at"] for each in report)


def main_thread_busy(folder: Path, meanwhile: str) -> float:
    program = Program(folder, hard=1.0, meanwhile=meanwhile)
    dead = last_death([pid_in(folder / name) for name in NAMES])
    report = [program.read() for _ in NAMES]
    program.process.wait()
    assert all(each["timed_out"] for each in report), report
    return dead - max(each["limit_at"] for each in report)


def killed(folder: Path, who: str) -> float:
    program = Program(folder, hard=0)
    victims = [pid for pid in program.below if pid != program.pids["keeper"]]
    before = monotonic()
    os.kill(program.pids[who], signal.SIGKILL)
    dead = last_death(victims)
    program.process.kill()
    program.process.wait()
    return dead - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    rows: list[dict[str, Any]] = []
    for what, measure in (
        ("core stopped: limit to all dead", core_stopped),
        ("main thread in a Python loop: limit to all dead", lambda folder: main_thread_busy(folder, "spin")),
        ("main thread in C code that keeps the GIL: the same", lambda folder: main_thread_busy(folder, "keep the GIL")),
        ("core killed: to all dead", lambda folder: killed(folder, "core")),
        ("keeper killed: to all dead", lambda folder: killed(folder, "keeper")),
    ):
        taken = []
        for _ in range(runs):
            with tempfile.TemporaryDirectory() as folder:
                taken.append(measure(Path(folder)))
        rows.append({"what": what, **spread(taken)})
    report("guards", rows)


if __name__ == "__main__":
    main()
