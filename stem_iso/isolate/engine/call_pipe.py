"""The core's end of the call pipe: a stream socket that never blocks, with descriptors beside its bytes (SCM_RIGHTS).

    send ──> outbox ──> socket ⇄ isolate        bytes ──> Unframer ──> frames
                                                descriptors ──> the one that belongs to the reply

Rules
 1. A descriptor travels with the first byte of its frame, so that it is here before the frame is whole. At most one each way and call: an
    isolate that sends more is sending garbage.
 2. A descriptor that is sent stays its owner's, who keeps it open until the call has ended; one that came is ours until it is taken.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterator

from stem_iso.isolate import wire
from stem_iso.isolate.engine.direct import Direct
from stem_iso.isolate.linux import send_with_descriptor

CHUNK = 1 << 16  # what one read takes: more than nearly every reply

Unsent = tuple[memoryview, int | None]


class CallPipe:
    """Owned by its isolate, under the engine's lock. `theirs` is the other end, until it is handed over."""

    def __init__(self, largest: int = wire.LARGEST) -> None:
        self.link, theirs = socket.socketpair()
        self.link.setblocking(False)
        self.theirs = theirs.detach()
        self._direct = Direct(self.link, CHUNK)
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
