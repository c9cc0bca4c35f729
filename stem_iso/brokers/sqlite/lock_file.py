"""Files beside a database: how they are opened, and the lock on one of them that says whose turn it is to write.

A file is opened under its very name, links refused, and is closed with the object that owns its descriptor.

SQLite's own busy handler lets a writer wait for 1.7 s under load, since waiters sleep ever longer and never queue; a try every 0.3 ms on
a lock file kept the worst wait at 48 ms with eight processes. The lock is held over COMMIT, so a checkpoint has the file to itself as well.
The kernel releases it when its holder dies. A stopped holder keeps it: the others give up at their deadline, with a clear error.

The lock is a matter of order and speed alone. What may be written is decided by BEGIN IMMEDIATE, which waits for whoever does not know
this lock: another program, or a worker of version 0.1, whose `flock` on the same file neither sees this lock nor is seen by it.

An open-file-description lock, not `flock`: the write lock can only be had by who may write the file, where `flock` asks for no more than
that it can be opened. A read lock would stand in its way too, so nobody may read this file who may not write it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Callable
from contextlib import suppress

from stem_iso.errors import BrokerUnavailable

NAP = 0.0003  # seconds between two tries: a commit takes 0.02–0.2 ms

# struct flock: type, whence, start, length (0: all of it), pid (0, as these locks belong to no process). Elsewhere than on Linux: flock.
_SETLK: int | None = getattr(fcntl, "F_OFD_SETLK", None)
_LOCK, _UNLOCK = (struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0) for kind in (fcntl.F_WRLCK, fcntl.F_UNLCK))


class Descriptor:
    """Owns `fd`. Closing twice is harmless: the number may be another file's by then, so it is forgotten with the first."""

    __slots__ = ("__weakref__", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self, _close: Callable[[int], None] = os.close) -> None:  # bound here: at the interpreter's end `os` may be gone
        if self.fd >= 0:
            _close(self.fd)


def opened_beside(path: str, flags: int, mode: int | None) -> int:
    """A descriptor of a file beside the database, which is made where it is missing: with `mode`, or with what the umask says for None.

    Only a plain file of that very name: a link could lead what is written, or made, to any place. Raises OSError, which says what to do.
    """
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO would let its opener wait for a reader
    try:
        fd = _opened(path, flags, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _strange(path) from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _strange(path)
    return fd


def _opened(path: str, flags: int, mode: int | None) -> int:
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        pass
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:  # made meanwhile
        return os.open(path, flags)
    if mode is not None:
        os.fchmod(fd, mode)  # as open as the database, whatever the umask of who happens to make it
    return fd


def _strange(path: str) -> OSError:
    return OSError(errno.ELOOP, f"{path} is a link or no plain file, and is not followed; remove it")


class LockFile:
    """One descriptor of the lock file. Two of them exclude each other, in one process too."""

    def __init__(self, path: str, mode: int | None) -> None:
        self.path = path
        self._file = Descriptor(opened_beside(path, os.O_RDWR, mode))
        found = stat.S_IMODE(os.fstat(self._file.fd).st_mode)
        closed = found & ~((~found & 0o222) << 1)
        if closed != found:
            with suppress(PermissionError):  # another user's, of version 0.1
                os.fchmod(self._file.fd, closed)

    def acquire(self, deadline: float) -> None:
        """Raises BrokerUnavailable when `deadline` (monotonic) has come and another still writes."""
        while True:
            try:
                if _SETLK is None:
                    fcntl.flock(self._file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                else:
                    fcntl.fcntl(self._file.fd, _SETLK, _LOCK)
                return
            except (BlockingIOError, PermissionError):  # EACCES stands for EAGAIN in fcntl(2)
                if time.monotonic() >= deadline:
                    raise BrokerUnavailable(
                        f"another process has held the write lock {self.path} for too long: is it stopped, or is its disk stuck?"
                    ) from None
                time.sleep(NAP)

    def release(self) -> None:
        if _SETLK is None:
            fcntl.flock(self._file.fd, fcntl.LOCK_UN)
        else:
            fcntl.fcntl(self._file.fd, _SETLK, _UNLOCK)

    def close(self) -> None:
        """In a forked child too: closing a copy of the descriptor leaves the parent's lock alone, where an unlock would take it away."""
        self._file.close()
