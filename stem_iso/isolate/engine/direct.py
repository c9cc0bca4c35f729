"""send(2) and recvmsg(2) on sockets that never block, without giving the GIL away.

Python's own socket calls release the GIL for the 1 to 3 µs that the kernel needs. While another thread of the program computes (it pickles
the next arguments, say), getting it back takes that thread's whole turn: the engine lost it twice for each call, and with it half of the
throughput. A blocking socket must never come here.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from typing import Any

ROOM = 64  # bytes of ancillary data: some descriptors
_CMSG = struct.Struct("@Nii")  # struct cmsghdr: length with this head, level, type
_FLAGS = 0x40000000 | 0x40  # MSG_CMSG_CLOEXEC, MSG_DONTWAIT
_SEND_FLAGS = 0x4000 | 0x40  # MSG_NOSIGNAL, MSG_DONTWAIT


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        *(("name", ctypes.c_void_p), ("namelen", ctypes.c_uint32)),
        *(("iov", ctypes.c_void_p), ("iovlen", ctypes.c_size_t)),
        *(("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t), ("flags", ctypes.c_int)),
    )


class Direct:
    """One socket. Used by one thread at a time."""

    def __init__(self, link: socket.socket, size: int) -> None:
        library: Any = ctypes.PyDLL(None, use_errno=True)  # PyDLL: the GIL is kept
        self._send, self._recvmsg = library.send, library.recvmsg
        self._send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
        self._recvmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
        self._send.restype = self._recvmsg.restype = ctypes.c_ssize_t
        self._fd = link.fileno()
        self._buffer, self._control = ctypes.create_string_buffer(size), ctypes.create_string_buffer(ROOM)
        self._view = memoryview(self._buffer).cast("B")
        self._iovec = _Iovec(ctypes.addressof(self._buffer), size)
        self._message = _Msghdr(None, 0, ctypes.addressof(self._iovec), 1, ctypes.addressof(self._control), ROOM, 0)
        self._address = ctypes.addressof(self._message)

    def send(self, data: bytes) -> int:
        """How much of it was taken. Raises BlockingIOError, OSError."""
        sent: int = self._send(self._fd, data, len(data), _SEND_FLAGS)
        if sent < 0:
            self._fail()
        return sent

    def receive(self) -> tuple[bytes, list[int]]:
        """What is there, and the descriptors that came beside it: the caller's from now on. Raises BlockingIOError, OSError."""
        self._message.controllen = ROOM
        size = self._recvmsg(self._fd, self._address, _FLAGS)
        if size < 0:
            self._fail()
        return bytes(self._view[:size]), self._descriptors() if self._message.controllen else []

    def forget(self) -> None:
        """The socket is closed, and its number may be another's by now: a later send fails (EBADF)."""
        self._fd = -1

    def _descriptors(self) -> list[int]:
        length, level, kind = _CMSG.unpack_from(self._control)
        if (level, kind) != (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            return []
        return list(struct.unpack_from(f"@{(length - _CMSG.size) // 4}i", self._control, _CMSG.size))

    def _fail(self) -> None:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))  # BlockingIOError where the number says so
