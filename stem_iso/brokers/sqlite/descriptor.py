"""A file descriptor that is closed with its object, if nobody closed it before."""

from __future__ import annotations

import os
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
