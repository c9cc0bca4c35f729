"""Fork safety: a child inherits nothing of an open database.

SQLite keeps, per process, an account of the locks it believes to hold; a forked child inherits the account but not the locks. A child that
went on would commit into nowhere, and one that merely opened the file anew beside the inherited handle would share its false account. So:

    before a fork     every database ends the transaction, or the opening, that it is in, and begins no other (a bounded wait)
    in the child      closes its copies: connection (idle: nothing is written or rolled back; the parent's POSIX locks stay the parent's),
                      lock file (never LOCK_UN: that would release the parent's), sidecars, listeners. It opens its own at its first use.
    in the parent     goes on; nothing was closed

A copy that could not be brought to rest is kept, untouched, to the child's end.
"""

from __future__ import annotations

import os
import threading
import time
from functools import cache
from typing import Protocol
from weakref import WeakSet

REST = 1.0  # seconds that a fork waits for transactions to end


class Forkable(Protocol):
    def rest(self, deadline: float) -> bool:
        """Hold it at rest; False if that could not be had by `deadline` (monotonic)."""

    def resume(self) -> None: ...

    def abandon(self, at_rest: bool) -> None:
        """In the child: let go of everything inherited."""


class ConnectionForkGuard:
    """All open databases of this process; asked by the interpreter around every fork."""

    def __init__(self) -> None:
        self._members: WeakSet[Forkable] = WeakSet()
        self._lock = threading.Lock()  # guards both fields; held around a fork, so that nobody joins in the midst of one
        self._resting: list[tuple[Forkable, bool]] = []
        os.register_at_fork(before=self._before, after_in_parent=self._after, after_in_child=self._in_child)

    def join(self, member: Forkable) -> None:
        """Before it opens anything. Waits for a fork that is going on, but for one that has joined before: the fork waits for that."""
        if member not in self._members:
            with self._lock:
                self._members.add(member)

    def _before(self) -> None:
        self._lock.acquire()
        deadline = time.monotonic() + REST
        self._resting = [(member, member.rest(deadline)) for member in list(self._members)]

    def _after(self) -> None:
        for member, at_rest in self._resting:
            if at_rest:
                member.resume()
        self._resting = []
        self._lock.release()

    def _in_child(self) -> None:
        resting, self._resting = self._resting, []
        self._lock = threading.Lock()
        for member, at_rest in resting:
            member.abandon(at_rest)


@cache
def fork_guard() -> ConnectionForkGuard:
    """One per process, because forks are a matter of the process; registered when the first database is opened."""
    return ConnectionForkGuard()
