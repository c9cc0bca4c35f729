"""Storms of forks, bounded in number and in time, so that one that nobody stops ends by itself. They end at their limit."""

from __future__ import annotations

import mmap
import os
import time
from typing import NoReturn

from entrypoints.hostile.company import linger
from entrypoints.hostile.trace import Trace, hostile

MOST, LASTS = 200, 2.0  # processes, seconds


class Budget:
    """Shared by all processes of a storm. Two may take the same one: the bound is one of magnitude."""

    def __init__(self) -> None:
        self._words = memoryview(mmap.mmap(-1, 8)).cast("Q")
        self._end = time.monotonic() + LASTS

    def spend(self) -> bool:
        self._words[0] += 1
        return self._words[0] <= MOST and time.monotonic() < self._end


def storm_of(trace: Trace, budget: Budget) -> None:
    """Each forks for as long as there is a budget, its children too."""
    while budget.spend():
        trace.fork(lambda: storm_of(trace, budget))
    linger()


def chain(trace: Trace, budget: Budget, session: bool) -> NoReturn:
    """Each leaves a child behind that stays, forks its successor, and exits."""
    while budget.spend():
        if session:
            os.setsid()
        trace.record()
        trace.fork(linger)
        if os.fork():
            os._exit(0)
    os._exit(0)


@hostile()
def storm(trace: Trace) -> None:
    storm_of(trace, Budget())


@hostile()
def storm_chain(trace: Trace) -> None:
    budget = Budget()
    trace.fork(lambda: chain(trace, budget, session=False))
    linger()


@hostile()
def storm_sessions(trace: Trace) -> None:
    """Each process of the chain in a session of its own."""
    budget = Budget()
    trace.fork(lambda: chain(trace, budget, session=True))
    linger()
