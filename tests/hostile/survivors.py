"""Who is still alive of a task that has ended: by ledger, by session, by the marker in an environment, by the title that a fork inherits.

The isolate itself lives on after a handler that merely failed or returned; it is idle then, and says so in its title a moment after it has
answered.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from entrypoints.hostile.trace import MARKER

SOON = 0.5  # seconds, of a machine that is busy with other things


def survivors(ledger: Path, marker: str, task_id: str) -> list[str]:
    """One line each: pid, how it was found, title."""
    written = [tuple(map(int, line.split())) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    born = {(pid, started) for pid, _, started in written}
    sessions = {session for _, session, _ in written}
    found = []
    for pid, session, started in living():
        title, environment = read(pid, "cmdline"), read(pid, "environ")
        how = (
            ("ledger" if (pid, started) in born else "")
            or ("session" if session in sessions else "")
            or ("marker" if f"{MARKER}={marker}\0".encode() in environment else "")
            or ("title" if task_id.encode() in title else "")
        )
        if how and not (pid == session and is_idle_soon(pid)):
            found.append(f"{pid} by {how}: {title.decode(errors='replace')[:80]}")
    return found


def is_idle_soon(pid: int) -> bool:
    deadline = time.monotonic() + SOON
    while title := read(pid, "cmdline"):
        if title.startswith(b"stem_iso: idle"):
            return True
        if time.monotonic() > deadline:
            break
    return False


def living() -> Iterator[tuple[int, int, int]]:
    """Pid, session and start time of each process that is no zombie."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = read(int(entry), "stat").rpartition(b")")[2].split()
            if fields and fields[0] not in (b"Z", b"X"):
                yield int(entry), int(fields[3]), int(fields[19])


def read(pid: int, what: str) -> bytes:
    """Empty if it is gone, or somebody else's."""
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""
