"""Brokers for the tests of this folder: with a clock that is moved by hand, or in another process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from stem_iso.brokers.base import BrokerOptions
from stem_iso.brokers.sqlite.broker import SqliteBroker
from stem_iso.brokers.sqlite.clock import StoreClock
from stem_iso.brokers.sqlite.connection import Connection
from stem_iso.brokers.sqlite.database import FileDatabase
from stem_iso.brokers.sqlite.in_memory import MemoryDatabase, MemoryStore

ROOT = Path(__file__).parent.parent.parent


@dataclass
class HandClock:
    """Time passes when a test says so. Wall clock and lease clock are two."""

    wall: float = 1_000_000.0
    lease: float = 500.0
    machine: str = "first boot"

    def as_clock(self) -> StoreClock:
        return StoreClock(lambda: self.wall, lambda: self.lease, lambda: self.machine)

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.lease += seconds


def in_memory(clock: HandClock, options: BrokerOptions | None = None) -> SqliteBroker:
    return SqliteBroker(MemoryDatabase(MemoryStore(clock.as_clock())), options or BrokerOptions())


def in_file(path: Path, clock: HandClock | None = None, options: BrokerOptions | None = None) -> SqliteBroker:
    return SqliteBroker(FileDatabase(str(path), "normal", clock.as_clock() if clock else StoreClock()), options or BrokerOptions())


def python(*arguments: str | Path) -> subprocess.Popen[str]:
    """A program of this folder in a process of its own, with pipes."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def ask(path: Path, question: str) -> list[tuple[object, ...]]:
    """What SQLite itself says about the file."""
    connection = Connection(str(path))
    answer = connection.all(question)
    connection.close()
    return answer


def is_sound(path: Path) -> bool:
    return ask(path, "PRAGMA integrity_check") == [("ok",)]
