"""The phases of a worker's shutdown. Pure.

               drain asked               grace over, or at once             nothing runs                 stored, or given up
    RUNNING ────────────────> DRAINING ─────────────────────────> KILLING ───────────────> STORING ───────────────────────> OVER
       └──────────────────────────────── at once ────────────────────^
               DRAINING ── nothing runs ──────────────────────────────────────────────────────^

    RUNNING    fetches
    DRAINING   fetches nothing; what runs goes on, with its limits, renewals and context requests
    KILLING    what still runs has been stopped or killed; nothing is settled before it has ended
    STORING    the last outcomes go to the broker, which may be away

A stop may be asked for in any phase. No phase comes twice.
"""

from __future__ import annotations

from enum import IntEnum


class ShutdownPhase(IntEnum):
    RUNNING = 0
    DRAINING = 1
    KILLING = 2
    STORING = 3
    OVER = 4


class Ask(IntEnum):
    DRAIN = 0
    AT_ONCE = 1


ASKED = {Ask.DRAIN: ShutdownPhase.DRAINING, Ask.AT_ONCE: ShutdownPhase.KILLING}


def asked(phase: ShutdownPhase, ask: Ask) -> ShutdownPhase:
    return max(phase, ASKED[ask])


def moved(phase: ShutdownPhase, *, running: int, unstored: int, grace_over: bool, patience_over: bool) -> ShutdownPhase:
    """The phase after a look at the facts. `patience_over`: this phase has taken longer than it may."""
    if phase is ShutdownPhase.DRAINING and grace_over:
        phase = ShutdownPhase.KILLING
    if phase in (ShutdownPhase.DRAINING, ShutdownPhase.KILLING) and not running:
        phase = ShutdownPhase.STORING
    if phase is ShutdownPhase.STORING and (not unstored or patience_over):
        phase = ShutdownPhase.OVER
    return phase
