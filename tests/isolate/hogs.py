"""Handlers that need memory."""

from __future__ import annotations

import mmap
import os
import time
from typing import NoReturn

MIB = 1 << 20


def touched(size: int) -> mmap.mmap:
    """Private anonymous memory, every page of it in use."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, size, mmap.PAGESIZE):
        memory[at] = 1
    return memory


def hold_for_ever(size: int) -> NoReturn:
    kept = [touched(MIB) for _ in range(size // MIB)]
    while kept:
        time.sleep(3600)
    raise AssertionError


def devour(most: int) -> str:
    kept = []
    while sum(map(len, kept)) < most:
        kept.append(touched(MIB))
    return f"had {len(kept)} MiB"


def slowly(most: int, seconds: float) -> str:
    kept, step = [], seconds * MIB / most
    while sum(map(len, kept)) < most:
        kept.append(touched(MIB))
        time.sleep(step)
    return f"had {len(kept)} MiB"


def child_devours(size: int) -> None:
    """The handler itself needs next to nothing."""
    if os.fork() == 0:
        hold_for_ever(size)
    time.sleep(3600)


def pages_are_shared(size: int, children: int) -> int:
    """Each of many processes has all of `size` mapped, and it is there once. Returns how much they would have if nobody shared."""
    kept = touched(size)
    reader, writer = os.pipe()
    for _ in range(children):
        if os.fork() == 0:
            os.write(writer, b"x" if kept[0] else b"")
            time.sleep(3600)
    for _ in range(children):
        os.read(reader, 1)
    time.sleep(0.5)  # long enough for many looks
    return size * (children + 1)


def devour_noting(ledger: str, rate: float, most: int, hold: float = 0.0) -> None:
    """Grows by `rate` MiB/s and notes its proportional memory, and its pid, in a file after each MiB."""
    with open(ledger, "r+b") as file:
        noted = memoryview(mmap.mmap(file.fileno(), 16)).cast("Q")
    with open("/proc/self/smaps_rollup") as rollup:
        used = next(int(line.split()[1]) << 10 for line in rollup if line.startswith("Pss:"))
    noted[0], noted[1] = used, os.getpid()
    kept, began, start = [], time.monotonic(), used
    while used < most:
        kept.append(mmap.mmap(-1, MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        for at in range(0, MIB, mmap.PAGESIZE):
            kept[-1][at] = 1
        used += MIB
        noted[0] = used
        while time.monotonic() - began < (used - start) / MIB / rate:
            pass
    time.sleep(hold)
