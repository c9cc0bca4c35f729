"""The isolate's end of the call pipe, and the handler's way to the core.

One thread at a time writes (`_lock`); a thread that sends a request keeps the lock until its answer is there, since during a call the core
sends nothing but answers. The soft limit's exception is raised on the main thread, and held back while that thread writes a frame or awaits
one: half a frame would be garbage. What other threads write does not hold it back.
"""

from __future__ import annotations

import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from math import inf
from threading import RLock, current_thread, main_thread
from types import FrameType

from stem_iso.errors import SoftTimeLimitExceeded
from stem_iso.isolate.child.setup import NUDGE_SIGNAL, RAISE_SIGNAL
from stem_iso.isolate.linux import receive_with_descriptors, send_with_descriptor
from stem_iso.isolate.wire import ANSWER, BEAT, LOG, REPLY, REQUEST, SEND, CallFrame, Frame, Unframer, frame, pack_log

CHUNK = 1 << 16  # a whole pipe's worth


class CoreExited(Exception):
    """End of file: nobody waits for anything we could send."""


class Pipe:
    """Frames in and out of one stream socket."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._unframer = Unframer()
        self._frames: deque[Frame] = deque()
        self._descriptors: deque[int] = deque()

    def receive(self) -> Frame:
        """The next frame. Raises CoreExited."""
        while not self._frames:
            data, descriptors = receive_with_descriptors(self._link, CHUNK)
            if not data:
                raise CoreExited
            if descriptors:
                self._descriptors.extend(descriptors)
            self._frames.extend(self._unframer.feed(data))
        return self._frames.popleft()

    def receive_or_end(self) -> Frame | None:
        """The next frame; None at the end, for a process that is idle."""
        try:
            return self.receive()
        except CoreExited:
            return None

    def take_descriptor(self) -> int | None:
        """The one that came with the frame that was received last."""
        return self._descriptors.popleft() if self._descriptors else None

    def fileno(self) -> int:
        return self._link.fileno()

    def send(self, kind: int, number: int, payload: bytes = b"", descriptor: int | None = None) -> None:
        self.send_all(frame(kind, number, payload), descriptor)

    def send_all(self, frames: bytes, descriptor: int | None = None) -> None:
        data: bytes | memoryview = frames
        try:
            if descriptor is not None:
                data = memoryview(data)[send_with_descriptor(self._link, data, descriptor) :]
            self._link.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            raise CoreExited from None


class Arming:
    """Around the handler: inside it the soft limit may raise. Made once, since a generator's would cost every call a microsecond."""

    def __init__(self, port: CallPort) -> None:
        self._port = port

    def __enter__(self) -> None:
        try:
            self._port.arm(True)
        except SoftTimeLimitExceeded:
            self._port.arm(False)
            raise

    def __exit__(self, *_: object) -> None:
        self._port.arm(False)


class CallPort:
    """`isolate.interfaces.IsolatePort` for the call that runs now."""

    isolated = True

    def __init__(self, pipe: Pipe, dump_stack: Callable[[], None]) -> None:
        self._pipe, self._dump_stack = pipe, dump_stack
        self._lock = RLock()
        self._call = 0
        self.soft_deadline: float | None = None
        self.hard_deadline: float | None = None
        self.cpus: frozenset[int] | None = None
        self._raises = self._armed = self._pending = False
        self.descriptor: int | None = None
        self._attached: int | None = None
        self._writing = 0  # by the main thread
        self._arming = Arming(self)
        self._owner = os.getpid()
        for number in (RAISE_SIGNAL, NUDGE_SIGNAL):
            signal.signal(number, self._on_raise)

    def begin(self, number: int, call: CallFrame) -> None:
        self._call = number
        self.descriptor = self._pipe.take_descriptor()
        self.soft_deadline = None if call.soft_deadline == inf else call.soft_deadline
        self.hard_deadline = None if call.hard_deadline == inf else call.hard_deadline
        self.cpus = frozenset(call.cpus) if call.cpus else None
        self._raises, self._pending = call.raises, False

    def request(self, payload: bytes) -> bytes:
        with self._locked():
            self._pipe.send(REQUEST, self._call, payload)
            while True:
                answer = self._pipe.receive()
                if answer.kind == ANSWER and answer.number == self._call:
                    return answer.payload

    def send(self, payload: bytes) -> None:
        self._write(SEND, payload)

    def beat(self) -> None:
        self._write(BEAT)

    def log(self, level: int, logger: str, text: str, details: bytes = b"") -> None:
        self._write(LOG, pack_log(level, logger, text, details))

    def attach(self, descriptor: int) -> None:
        self._attached = descriptor

    def reply(self, payload: bytes) -> None:
        """The call's last frame, and what is attached to it."""
        with self._lock:  # the handler is left: nothing is raised any more, and so nothing held back
            self._pipe.send(REPLY, self._call, payload, self._attached)
        for descriptor in (self._attached, self.descriptor):
            if descriptor is not None:
                os.close(descriptor)
        self._attached = self.descriptor = None

    def _write(self, kind: int, payload: bytes = b"") -> None:
        with self._locked():
            self._pipe.send(kind, self._call, payload)

    def armed(self) -> AbstractContextManager[None]:
        return self._arming

    def arm(self, armed: bool) -> None:
        self._armed = armed
        if armed and self._pending:
            self._raise_once()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if os.getpid() != self._owner:
            raise RuntimeError("the task's context belongs to its isolate: a process that the handler forked cannot use it")
        on_main = current_thread() is main_thread()
        with self._lock:
            self._writing += on_main
            try:
                yield
            finally:
                self._writing -= on_main
        if on_main and self._pending:
            self._raise_once()

    def _on_raise(self, number: int, frame: FrameType | None) -> None:
        if number == RAISE_SIGNAL:
            self._dump_stack()
        if self._writing:
            self._pending = True
        else:
            self._raise_once()

    def _raise_once(self) -> None:
        if not self._armed:
            self._pending = self._raises  # the function has not been entered: it is raised as its first step
            return
        self._pending = False
        if self._raises:
            self._raises = False
            raise SoftTimeLimitExceeded("soft time limit reached")
