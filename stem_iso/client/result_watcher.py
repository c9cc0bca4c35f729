"""Waiting for results: one watcher for all waits of an application in this process, by whatever thread or loop.

    result, aresult ── wait ─> Watcher ── its thread, its broker ──> ResultWatch.poll ──> the future of each wait
                                 ^                                              │
                                 └───── poll: the store wakes, a wait comes ────┘

Rules
 1. A thousand waits cost one thread and one connection. Both are there while somebody waits, and for `LINGER` seconds after that.
 2. A wait looks at least once, however short it is, and ends no later than asked: by the record, UnknownResult, or TimeoutError.
 3. The first look must reach the broker, else the wait ends with BrokerUnavailable: a wrong address is said at once. A broker that goes
    away later is waited for; a wait that runs out meanwhile says so in its TimeoutError.
 4. Whoever stops waiting (a cancelled await, Ctrl-C) cancels its future; the watcher forgets it with its next turn.
 5. A forked child has a watcher of its own, and touches nothing of the parent's.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from stem_iso.brokers.readiness import wait_readable
from stem_iso.client.service_thread import ServiceThread
from stem_iso.errors import BrokerUnavailable, UnknownResult

if TYPE_CHECKING:
    from stem_iso.brokers.base import Broker, ResultWatch, StatusRecord

LINGER = 5.0  # seconds: opening a store takes milliseconds, which a program that waits again and again should pay once
AGAIN, SELDOM = 0.1, 1.0  # seconds until a broker that is away is asked again: the first pause, and the longest
SHARE = 4  # looks at many waits may take a fifth of a core: after one of 5 ms, 20 ms of rest


class Wait(NamedTuple):
    id: str
    queue: str | None
    timeout: float | None
    deadline: float  # monotonic
    future: Future[StatusRecord]

    def answer(self, found: StatusRecord | Exception) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        if isinstance(found, Exception):
            self.future.set_exception(found)
        else:
            self.future.set_result(found)


class Watcher:
    """One per application. `open` makes a broker, which the watcher's thread alone uses."""

    def __init__(self, open: Callable[[], Broker]) -> None:
        self._thread = ServiceThread("stem_iso: results", lambda: _Service(open()))

    def wait(self, id: str, timeout: float | None, queue: str | None = None) -> Future[StatusRecord]:
        """The terminal record, as soon as there is one. Cancel the future to stop waiting.

        Its exceptions: TimeoutError, UnknownResult, BrokerUnavailable. Raises RuntimeError where no thread is to be had.
        """
        deadline = inf if timeout is None else time.monotonic() + timeout
        wait = Wait(id, queue, timeout, deadline, Future())
        self._thread.take(wait)
        return wait.future

    def close(self) -> None:
        """Waits that go on keep the watcher; one that only lingers ends."""
        self._thread.close()


class _Service:
    """A life of the watcher, from the first wait to the last."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._lock = threading.Lock()  # guards the three below
        self._new: list[Wait] = []
        self._over = False
        self._linger = LINGER
        # The rest is owned by the thread of `run`.
        self._ends: ResultWatch | None = None
        self._waits: dict[str, list[Wait]] = {}
        self._fresh: set[str] = set()  # ids that were not looked at yet
        self._away: BrokerUnavailable | None = None
        self._at_rest = True
        self._reader, self._writer = socket.socketpair()  # a pipe is nothing that Windows could wait for
        for end in (self._reader, self._writer):
            end.setblocking(False)

    def take(self, wait: Wait) -> bool:
        with self._lock:
            if self._over:
                return False
            self._new.append(wait)
            self._wake()
            return True

    def leave(self) -> None:
        with self._lock:
            self._linger = 0.0
            if not self._over:
                self._wake()

    def abandon(self) -> None:
        self._close()

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # full: it will wake
            self._writer.send(b"\n")

    def run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # whatever it was: nobody may wait for a thread that is gone
            failure = BrokerUnavailable(f"waiting for results ended: {error!r}")
            for wait in self._close():
                wait.answer(failure)
            raise

    def _serve(self) -> None:
        busy_at, pause = time.monotonic(), AGAIN
        while True:
            self._take_in()
            now = time.monotonic()
            if self._waits:
                busy_at = now
            elif now - busy_at >= self._linger and self._ended():
                return
            self._poll_ends()
            cost = time.monotonic() - now
            self._run_out()
            pause = min(SELDOM, pause * 2) if self._away else AGAIN
            if cost > 0.001 and not self._away:
                time.sleep(min(0.25, cost * SHARE))
            self._sleep(pause if self._away else LINGER if self._waits else self._linger)

    def _take_in(self) -> None:
        with self._lock:
            new, self._new = self._new, []
        for wait in new:
            self._waits.setdefault(wait.id, []).append(wait)
            self._fresh.add(wait.id)
        for id in [id for id, waits in self._waits.items() if all(wait.future.done() for wait in waits)]:
            self._drop(id)

    def _drop(self, id: str) -> list[Wait]:
        self._fresh.discard(id)
        return self._waits.pop(id)

    def _poll_ends(self) -> None:
        if not self._waits and (self._ends is None or self._at_rest):
            return
        self._at_rest = not self._waits  # a last look lets the store forget whoever stopped waiting
        try:
            if self._ends is None:
                self._ends = self._broker.watch_results()
            found = self._ends.poll({id: waits[0].queue for id, waits in self._waits.items()})
        except BrokerUnavailable as error:
            self._away = error
            self._let_go()
            self._take_in()  # who came meanwhile would get the same, seconds later
            for id in list(self._fresh):  # rule 3
                self._answer(id, error)
            return
        self._away = None
        self._fresh.clear()
        for id, record in found.items():
            self._answer(id, record or UnknownResult(f"no task {id}: it never was, or its result has expired"))

    def _answer(self, id: str, found: StatusRecord | Exception) -> None:
        for wait in self._drop(id):
            wait.answer(found)

    def _run_out(self) -> None:
        now = time.monotonic()
        for id in [id for id, waits in self._waits.items() if any(wait.deadline <= now for wait in waits)]:
            waits = self._drop(id)
            for wait in waits:
                if wait.deadline <= now:
                    away = f"; the broker cannot be reached: {self._away}" if self._away else ""
                    wait.answer(TimeoutError(f"task {id} has not ended after {wait.timeout:g} s of waiting{away}"))
            if left := [wait for wait in waits if wait.deadline > now]:
                self._waits[id] = left

    def _sleep(self, longest: float) -> None:
        descriptors = [self._reader.fileno()]
        if self._ends is not None and self._waits:
            descriptors.append(self._ends.fileno())
            longest = min(longest, self._ends.interval)
        nearest = min((wait.deadline for waits in self._waits.values() for wait in waits), default=inf)
        left = max(0.0, min(longest, nearest - time.monotonic()))
        wait_readable(descriptors, left)
        with suppress(BlockingIOError):
            self._reader.recv(65_536)

    # -- the end ----------------------------------------------------------------------------------------------------------------------

    def _ended(self) -> bool:
        with self._lock:
            if self._new:
                return False
            self._over = True
        self._close()
        return True

    def _close(self) -> Iterable[Wait]:
        """Those that still wait."""
        with self._lock:
            self._over = True
            left = [*self._new, *(wait for waits in self._waits.values() for wait in waits)]
            self._new, self._waits = [], {}
            self._reader.close()
            self._writer.close()
        self._let_go()
        with suppress(BrokerUnavailable):  # it could not be written back: that is the next one's to do
            self._broker.close()
        return left

    def _let_go(self) -> None:
        ends, self._ends = self._ends, None
        if ends is not None:
            ends.close()
