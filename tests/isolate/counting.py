"""Executions counted in shared memory: what a handler has done stands, whatever killed it a microsecond later.

    a file of 8-byte words, four a number:   reached  just before the isolate stores `started`; by the engine's number of the call
                                             begun    the handler's first act; by the number that the test gave it
                                             done     its last
Each word has one writer at a time (a call runs in one isolate), so that an increment needs no lock; a second execution makes a 2.
"""

from __future__ import annotations

import mmap
from pathlib import Path

WORDS = 4
REACHED, BEGUN, DONE = range(3)


class Counters:
    def __init__(self, path: str | Path, calls: int | None = None) -> None:
        """`calls`: make the file, for so many."""
        if calls is not None:
            Path(path).write_bytes(bytes(calls * WORDS * 8))
        with open(path, "r+b") as file:
            self._words = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")

    def add(self, call: int, which: int) -> None:
        self._words[call * WORDS + which] += 1

    def of(self, call: int) -> tuple[int, int, int]:
        """How often it was reached, begun and done."""
        at = call * WORDS
        return self._words[at], self._words[at + 1], self._words[at + 2]
