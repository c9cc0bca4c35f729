"""Functions that make what outlives a process: semaphores, shared memory, folders. Each says the paths of what it has made."""

from __future__ import annotations

import multiprocessing as mp
import os
import sys
import time
from collections.abc import Callable
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

KEPT: list[Any] = []


def semaphores(count: int = 2) -> list[str]:
    KEPT.extend(mp.get_context("spawn").Lock() for _ in range(count))
    return [f"/dev/shm/sem.{lock._semlock.name[1:]}" for lock in KEPT[-count:]]


def memory() -> list[str]:
    KEPT.append(shared_memory.SharedMemory(create=True, size=1 << 16))
    return [f"/dev/shm/{KEPT[-1].name}"]


def of_loky() -> list[str]:
    from loky.backend.context import get_context  # type: ignore[import-untyped, unused-ignore]

    KEPT.append(get_context("loky").Lock())
    return [f"/dev/shm/sem.{KEPT[-1]._semlock.name[1:]}"]


def of_a_copy(parent: str) -> list[str]:
    """A copy of loky in another package, as joblib has one, with a folder that its tracker is to remove."""
    sys.path.insert(0, parent)
    from copied.loky.backend import resource_tracker  # type: ignore[import-not-found]
    from copied.loky.backend.synchronize import Lock  # type: ignore[import-not-found]

    KEPT.append(Lock())
    folder = Path(parent) / f"memmaps-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir()
    (folder / "array").write_text("")
    resource_tracker.register(str(folder), "folder")
    return [f"/dev/shm/sem.{KEPT[-1]._semlock.name[1:]}", str(folder)]


def in_a_child(method: str, file: str) -> list[str]:
    """It spins, so that only a kill ends it."""
    context: Any = mp.get_context(method)
    made = Path(file + ".child")
    context.Process(target=spin_with, args=(semaphores if method == "spawn" else memory, str(made))).start()
    while not made.exists():
        time.sleep(0.01)
    return made.read_text().split()


def everything(parent: str) -> list[str]:
    return semaphores() + memory() + of_loky() + of_a_copy(parent)


def spin_with(make: Callable[..., list[str]], file: str, *args: str) -> None:
    made = make(*args)
    Path(file + ".new").write_text("\n".join(made))
    os.rename(file + ".new", file)
    while True:
        time.sleep(0.01)


def with_pid() -> tuple[int, list[str]]:
    return os.getpid(), semaphores()


def attach(name: str) -> int:
    """And keeps it attached."""
    KEPT.append(shared_memory.SharedMemory(name))
    KEPT[-1].buf[0] += 1
    return int(KEPT[-1].buf[0])


def attach_and_spin(name: str) -> None:
    attach(name)
    while True:
        time.sleep(0.01)
