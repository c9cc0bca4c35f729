"""The roster of inline hosts: which one takes calls, and when one is started. Pure: events and `now` in, the host to start out.

    a host: booting ──> open ──> draining ──> gone
                          └ takes the calls that have a seat (`allocator`)

Rules
 1. At most one host boots or is open. One that drains takes no more, and a fresh one takes its place at once.
 2. A host is wanted while calls wait for one, and always where the worker has inline handlers (`eager`).
 3. Boots that fail are delayed as in `allocator`, and whoever waits is given up after as many. A host that dies by itself before it has
    begun a call counts as one whose boot failed: else a program that dies soon after its start would be started for ever. One that a call
    brought down does not: that is the call's affair.
"""

from __future__ import annotations

from stem_iso.isolate.engine.allocator import BOOT_TRIES, backoff


class Roster:
    """Owned by the engine, under its lock. Hosts are negative numbers, never used twice: other isolates are positive."""

    def __init__(self, eager: bool) -> None:
        self.eager = eager
        self.open: int | None = None
        self.booting: int | None = None
        self._hosts = 0
        self.boot_failures = 0
        self.boot_after = 0.0  # no start before this time
        self.closed = False
        self.paused = False  # nobody is there to start one

    def decide(self, waiting: int, now: float) -> int | None:
        """The host to start, if one is missing. `waiting`: how many calls there are for it."""
        wanted = (self.eager or waiting > 0) and not self.closed and not self.paused
        if not wanted or self.open is not None or self.booting is not None or now < self.boot_after:
            return None
        self._hosts += 1
        self.booting = -self._hosts
        return self.booting

    def ready(self, host: int) -> None:
        self.booting, self.open = None, host

    def left(self, host: int) -> None:
        """It takes no more: it drains, dies or is gone."""
        self.open = None if self.open == host else self.open
        self.booting = None if self.booting == host else self.booting

    def proved(self) -> None:
        """A call has ended in a host: whatever was wrong is over."""
        self.boot_failures, self.boot_after = 0, 0.0

    def failed(self, host: int, now: float) -> bool:
        """Its boot failed, or it died before it had begun a call. True: give up whoever waits."""
        self.left(host)
        self.boot_failures += 1
        self.boot_after = now + backoff(self.boot_failures)
        return self.boot_failures >= BOOT_TRIES
