"""Who is left of a task that has ended: by ledger, by session, by the marker in an environment, by the title that a fork inherits.

    living    what runs, in the instant in which the end is known
    zombies   what is dead and not reaped: it holds a pid, of which a machine has an end. They have a second

The isolate itself lives on after a handler that merely failed or returned; it is idle then, and says so in its title a moment after it has
answered. A zombie has neither environment nor title any more: ledger and session find it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from entrypoints.hostile.trace import MARKER
from tests.isolate.calling import eventually

SOON = 0.5  # seconds, of a machine that is busy with other things
DEAD = ("Z", "X")


def survivors(ledger: Path, marker: str, task_id: str) -> list[str]:
    """Those that live; one line each: pid, how it was found, title."""
    born, sessions = _written(ledger)
    found = []
    for process in processes():
        if process.state in DEAD:
            continue
        pid = process.pid
        title, environment = read(pid, "cmdline"), read(pid, "environ")
        how = (
            ("ledger" if (pid, process.started) in born else "")
            or ("session" if process.session in sessions else "")
            or ("marker" if f"{MARKER}={marker}\0".encode() in environment else "")
            or ("title" if task_id.encode() in title else "")
        )
        if how and not (pid == process.session and is_idle_soon(pid)):
            found.append(f"{pid} by {how}: {title.decode(errors='replace')[:80]}")
    return found


def survivors_after(within: float, ledger: Path, marker: str, task_id: str) -> list[str]:
    """Those that live still, `within` seconds later."""
    return _patiently(within, lambda: survivors(ledger, marker, task_id))


def zombies_after(within: float, ledger: Path, worker: int) -> list[str]:
    """Those that are not reaped `within` seconds later: of the task, and whatever else is a dead child of the launcher `worker`."""
    return _patiently(within, lambda: _zombies(ledger, worker))


def _zombies(ledger: Path, worker: int) -> list[str]:
    born, sessions = _written(ledger)
    return [
        f"{each.pid}, a zombie of {each.parent}"
        for each in processes()
        if each.state == "Z" and ((each.pid, each.started) in born or each.session in sessions or each.parent == worker)
    ]


def _written(ledger: Path) -> tuple[set[tuple[int, int]], set[int]]:
    """(pid, start time) of each process in the ledger, and their sessions."""
    lines = [tuple(map(int, line.split()[:3])) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    return {(pid, started) for pid, _, started in lines}, {session for _, session, _ in lines}


def began(ledger: Path) -> float | None:
    """When the handler began, by the wall clock."""
    first = ledger.read_text().partition("\n")[0] if ledger.exists() else ""
    return float(first.split()[3]) if first else None


def _patiently(within: float, look: Callable[[], list[str]]) -> list[str]:
    found: list[str] = []

    def nobody() -> bool:
        found[:] = look()
        return not found

    with suppress(AssertionError):
        eventually(nobody, "somebody is left", within)
    return found


def is_idle_soon(pid: int) -> bool:
    """Or gone: one that cannot be used again is not kept."""

    def is_idle() -> bool:
        title = read(pid, "cmdline")
        return title.startswith(b"stem_iso: idle") or (not title and _is_dead(pid))

    try:
        eventually(is_idle, "it is at work", SOON)
    except AssertionError:
        return False
    return True


def _is_dead(pid: int) -> bool:
    fields = read(pid, "stat").rpartition(b")")[2].split()
    return not fields or fields[0].decode() in DEAD


class Process(NamedTuple):
    pid: int
    state: str
    parent: int
    session: int
    started: int  # clock ticks since boot


def processes() -> Iterator[Process]:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = read(int(entry), "stat").rpartition(b")")[2].split()
            if fields:
                yield Process(int(entry), fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19]))


def read(pid: int, what: str) -> bytes:
    """Empty if it is gone, or somebody else's."""
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""
