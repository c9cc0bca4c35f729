"""The core's end of the call pipe: a stream socket that never blocks, with descriptors beside its bytes (SCM_RIGHTS).

    send ──> outbox ──> socket ⇄ isolate        bytes ──> Unframer ──> frames
                                                descriptors ──> the one that belongs to the reply

Rules
 1. A descriptor travels with the first byte of its frame, so that it is here before the frame is whole. At most one each way and call: an
    isolate that sends more is sending garbage.
 2. A descriptor that is sent stays its owner's, who keeps it open until the call has ended; one that came is ours until it is taken.
 3. send(2) and recvmsg(2) keep the GIL (`DirectSocket`). Python's own socket calls release it for the 1 to 3 µs that the kernel needs.
    While another thread of the program computes (it pickles the next arguments, say), getting it back takes that thread's whole turn: the
    engine lost it twice for each call, and with it half of the throughput.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from stem_iso.isolate import wire
from stem_iso.isolate.linux import send_with_descriptor

CHUNK = 1 << 16  # what one read takes: more than nearly every reply
ROOM = 64  # bytes of ancillary data: some descriptors
_CMSG = struct.Struct("@Nii")  # struct cmsghdr: length with this head, level, type
_RECEIVE_FLAGS = 0x40000000 | 0x40  # MSG_CMSG_CLOEXEC, MSG_DONTWAIT
_SEND_FLAGS = 0x4000 | 0x40  # MSG_NOSIGNAL, MSG_DONTWAIT

Unsent = tuple[memoryview, int | None]


class CallPipe:
    """Owned by its isolate, under the engine's lock. `theirs` is the other end, until it is handed over."""

    def __init__(self, largest: int = wire.LARGEST) -> None:
        self.link, theirs = socket.socketpair()
        self.link.setblocking(False)
        self.theirs = theirs.detach()
        self._direct = DirectSocket(self.link)
        self._outbox: deque[Unsent] = deque()
        self._unframer = wire.Unframer(largest)
        self._came: list[int] = []

    # -- out -----------------------------------------------------------------------------------------------------------------------

    def send(self, data: bytes, descriptor: int | None = None) -> bool:
        """Write what the pipe takes; False: the rest is in the outbox and goes out when there is room."""
        unsent = (memoryview(data), descriptor) if self._outbox else self._write(data, descriptor)
        if unsent is None:
            return True
        self._outbox.append(unsent)
        return False

    def flush(self) -> bool:
        """Goes on with the outbox; True when it is empty."""
        while self._outbox:
            unsent = self._write(*self._outbox.popleft())
            if unsent is not None:
                self._outbox.appendleft(unsent)
                return False
        return True

    def end(self) -> None:
        """Nothing more will be sent: an idle isolate leaves at that."""
        with suppress(OSError):  # it is dead
            self.link.shutdown(socket.SHUT_WR)

    def _write(self, data: bytes | memoryview, descriptor: int | None) -> Unsent | None:
        try:
            if descriptor is not None:
                sent = send_with_descriptor(self.link, data, descriptor)
            else:
                sent = self._direct.send(data) if type(data) is bytes else self.link.send(data)
        except BlockingIOError:
            return memoryview(data), descriptor
        except OSError:  # it is dead, or closed its end: its exit is what counts
            return None
        return None if sent == len(data) else (memoryview(data)[sent:], None)

    # -- in ------------------------------------------------------------------------------------------------------------------------

    def receive(self) -> list[wire.Frame]:
        """The frames that one read completes. Raises wire.Garbage.

        None at the end of file, which says nothing: a grandchild may hold the pipe open, or a handler may have closed it.
        """
        try:
            data, descriptors = self._direct.receive()
        except OSError:
            return []
        return self._take_in(data, descriptors)

    def drain(self) -> Iterator[wire.Frame]:
        """All that it wrote before it died. Garbage ends it quietly: the process is gone."""
        while True:
            try:
                data, descriptors = self._direct.receive()
                frames = self._take_in(data, descriptors)
            except (OSError, wire.Garbage):
                return
            if not data:
                return
            yield from frames

    def take_descriptor(self) -> int | None:
        """The one that came with the reply, the caller's from now on."""
        return self._came.pop() if self._came else None

    def at_end(self) -> bool:
        """Whether the other side has closed the pipe."""
        try:
            return self.link.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        self.link.close()
        self._direct.forget()
        self._outbox.clear()
        self._drop_descriptors()

    def _take_in(self, data: bytes, descriptors: list[int]) -> list[wire.Frame]:
        if descriptors:
            self._came += descriptors
            if len(self._came) > 1:
                self._drop_descriptors()
                raise wire.Garbage("more than one descriptor with a reply")
        return self._unframer.feed(data) if data else []

    def _drop_descriptors(self) -> None:
        while self._came:
            os.close(self._came.pop())


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        *(("name", ctypes.c_void_p), ("namelen", ctypes.c_uint32)),
        *(("iov", ctypes.c_void_p), ("iovlen", ctypes.c_size_t)),
        *(("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t), ("flags", ctypes.c_int)),
    )


class DirectSocket:
    """A socket that never blocks, used by one thread at a time; a blocking one would hold the GIL while it waits."""

    def __init__(self, link: socket.socket) -> None:
        library: Any = ctypes.PyDLL(None, use_errno=True)  # PyDLL: the GIL is kept
        self._send, self._recvmsg = library.send, library.recvmsg
        self._send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
        self._recvmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
        self._send.restype = self._recvmsg.restype = ctypes.c_ssize_t
        self._fd = link.fileno()
        self._buffer, self._control = ctypes.create_string_buffer(CHUNK), ctypes.create_string_buffer(ROOM)
        self._view = memoryview(self._buffer).cast("B")
        self._iovec = _Iovec(ctypes.addressof(self._buffer), CHUNK)
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
        size = self._recvmsg(self._fd, self._address, _RECEIVE_FLAGS)
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
