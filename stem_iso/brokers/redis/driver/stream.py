"""Stream of a plain socket whose answers hiredis parses: commands are one call of the system, and their answer two.

    write(commands, deadline)   all in one send; what the system does not take is waited for with poll(2)
    answer(deadline)            the next answer, waited for; `arrived()`: MISSING where none is whole yet
    hung_up()                   whether the peer has closed it, as far as is known here

The socket never blocks, and no time-out is set on it: Python would ask the system twice for each. Not for TLS, whose reads may want to
write, nor without hiredis or poll(2): there redis-py reads and writes (`connection`).
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

MISSING = object()  # of an answer only a part has come
CHUNK = 1 << 16


class AnswerReader(Protocol):
    """As of hiredis."""

    def feed(self, data: bytes, /) -> None: ...

    def gets(self) -> Any: ...


class PlainStream:
    """`reader`: with `notEnoughData=MISSING`. Raises OSError, TimeoutError among them, and what the reader raises."""

    def __init__(self, connected: socket.socket, reader: AnswerReader, pack: Callable[[tuple[Any, ...]], bytes]) -> None:
        self._socket, self._reader, self._pack = connected, reader, pack
        connected.settimeout(0)
        self._readable, self._writable = _poll(connected, select.POLLIN), _poll(connected, select.POLLOUT)

    def write(self, commands: Sequence[tuple[Any, ...]], deadline: float) -> None:
        left: bytes | memoryview = b"".join(map(self._pack, commands))
        while left:
            try:
                sent = self._socket.send(left)
            except BlockingIOError:
                _wait(self._writable, deadline)
                continue
            if sent == len(left):
                return
            left = memoryview(left)[sent:]

    def answer(self, deadline: float) -> Any:
        found = self._reader.gets()
        while found is MISSING:
            _wait(self._readable, deadline)
            self._receive()
            found = self._reader.gets()
        return found

    def arrived(self) -> Any:
        found = self._reader.gets()
        while found is MISSING and self._receive():
            found = self._reader.gets()
        return found

    def hung_up(self) -> bool:
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _receive(self) -> bool:
        """Whether something had come."""
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return False
        if not data:
            raise ConnectionResetError("Connection closed by server.")
        self._reader.feed(data)
        return True


def _poll(connected: socket.socket, events: int) -> Callable[[float], list[tuple[int, int]]]:
    poll = select.poll()
    poll.register(connected, events)
    return poll.poll


def _wait(poll: Callable[[float], list[tuple[int, int]]], deadline: float) -> None:
    # Never 0: what has arrived already is still taken.
    if not poll(max(1.0, (deadline - time.monotonic()) * 1000)):
        raise TimeoutError
