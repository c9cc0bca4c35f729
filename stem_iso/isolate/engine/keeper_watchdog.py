"""Watchdog of a keeper that has not reported the exit of an isolate: what the core does about it, and when. Pure.

    exit seen ── 100 ms ──> SIGCONT ── 0.9 s ──> SIGKILL           all trees die with it, so it must be certain that it is of no more use

1. One that turns, or whose report is here and unread, is not silent, whatever the clock says: it sweeps a storm of forks, or this process
   was stopped or without GIL and has not read yet. The clock begins anew.
2. One that runs, waits for a CPU or stands in the kernel is starved, not stuck: it starts sixty isolates, say, on two cores. It has half a
   minute.
3. One that sleeps, or is stopped again, will not report any more.
"""

from __future__ import annotations

from enum import Enum

WAKE, KILL, STARVED = 0.1, 0.9, 30.0  # seconds: until SIGCONT, from there until SIGKILL, and of one that is starved since the exit


class Press(Enum):
    WAIT = "it is at work"
    WAKE = "SIGCONT"
    PATIENCE = "it is starved"
    KILL = "SIGKILL"


def press(*, at_work: bool, woken: bool, state: str, since: float) -> Press:
    """`at_work`: it turned since the last look, or its message is unread; `woken`: it was sent SIGCONT since then, 0.9 s ago; `state`: its
    letter in /proc/PID/stat, empty where that is hidden; `since`: seconds since the exit."""
    if at_work:
        return Press.WAIT
    if not woken:
        return Press.WAKE
    return Press.PATIENCE if state in ("R", "D", "") and since < STARVED else Press.KILL
