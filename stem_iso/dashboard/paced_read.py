"""Paced read: something that the broker is asked for on behalf of many, no more often than its price allows.

    read ──> fresh: the last value ── its time is over: read anew, by one for all ── dear: the last value, and read anew beside it

Rules
 1. A value is fresh for REST times as long as it took to read, but no longer than `longest_rest`: what costs a millisecond is read nearly
    each time, and what costs a tenth of a second takes a fortieth of a core, however many look.
 2. What took longer than DEAR is renewed by a thread while the last value is shown, so nobody waits who looks again and again. A value
    older than `oldest` seconds is shown to nobody.
 3. After `forget` the next one waits for a new value: something was changed here, and whoever changed it wants to see that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Generic, TypeVar

from stem_iso.errors import BrokerUnavailable

T = TypeVar("T")

REST, LONGEST_REST = 40, 2.0  # times; seconds, unless it is said otherwise
DEAR = 0.05  # seconds
OLDEST = 5.0  # seconds, unless it is said otherwise


class PacedRead(Generic[T]):
    """For any thread. `read` is called by one at a time, unless something was changed meanwhile."""

    def __init__(
        self,
        read: Callable[[], T],
        oldest: float = OLDEST,
        clock: Callable[[], float] = time.monotonic,
        longest_rest: float = LONGEST_REST,
    ) -> None:
        self._read, self._oldest, self._clock, self._longest_rest = read, oldest, clock, longest_rest
        self._reading = threading.Lock()  # held by who reads
        self._lock = threading.Lock()  # guards the four below
        self._last: tuple[T] | None = None  # the value, in a tuple, for None may be one
        self._read_at, self._cost = -inf, 0.0
        self._changes = 0

    def value(self) -> T:
        """Raises what `read` raises."""
        if (found := self._fresh()) is not None:
            return found[0]
        if (found := self._old_but_dear()) is not None:
            if self._reading.acquire(blocking=False):
                threading.Thread(target=self._renew, name="stem_iso: dashboard renewal", daemon=True).start()
            return found[0]
        with self._reading:
            found = self._fresh()
            return self._read_anew() if found is None else found[0]

    def forget(self) -> None:
        with self._lock:
            self._read_at, self._changes = -inf, self._changes + 1

    def _fresh(self) -> tuple[T] | None:
        with self._lock:
            return self._last if self._clock() - self._read_at < min(REST * self._cost, self._longest_rest) else None

    def _old_but_dear(self) -> tuple[T] | None:
        with self._lock:
            return self._last if self._cost > DEAR and self._clock() - self._read_at < self._oldest else None

    def _renew(self) -> None:
        try:
            with suppress(BrokerUnavailable):  # the value grows too old, and whoever asks then is told
                self._read_anew()
        finally:
            self._reading.release()

    def _read_anew(self) -> T:
        with self._lock:
            changes = self._changes
        began = self._clock()
        value = self._read()
        with self._lock:
            ended = self._clock()
            self._last, self._cost = (value,), ended - began
            self._read_at = ended if changes == self._changes else -inf
        return value
