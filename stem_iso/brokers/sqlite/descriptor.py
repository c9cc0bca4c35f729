"""File descriptors: one that is closed with its object, if nobody closed it before; and the files beside a database."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable


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
