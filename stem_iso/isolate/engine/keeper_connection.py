"""The connection to the keeper: requests for isolates go out, reports of their exits come in.

A program that embeds a worker or a pool starts a keeper of its own; by command the keeper is the launcher, and hands its socket down.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import weakref
from contextlib import suppress
from typing import Any

from stem_iso.isolate import interpreter
from stem_iso.isolate.keeper import protocol
from stem_iso.isolate.keeper.keeper import SEATS
from stem_iso.isolate.keeper.protocol import FORWARD, HELLO, KILL, START, WAKE
from stem_iso.isolate.linux import fill_standard_descriptors
from stem_iso.isolate.shared_row import Table

HELLO_LIMIT = 30.0  # seconds for the keeper's first message; it takes 20 ms on an idle machine


class KeeperLost(Exception):
    """The keeper is gone, or never came."""


class KeeperConnection:
    """Talks to one keeper. Used by the engine's thread, but for `wake`, which any sender of a call may use."""

    def __init__(self, given: socket.socket | None = None) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self.socket = given if given is not None else self._spawn()
        self.socket.settimeout(HELLO_LIMIT)
        try:
            received = protocol.receive(self.socket)
        except TimeoutError:
            received = None
        if received is None or received[0][0] != HELLO:
            raise KeeperLost("the keeper process did not start")
        (_, self.pid), (table, self._lifeline) = received
        self.table = Table(table, SEATS)
        os.close(table)
        self.pidfd = os.pidfd_open(self.pid)
        self.socket.setblocking(False)
        own = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _let_go(own()))

    def _spawn(self) -> socket.socket:
        fill_standard_descriptors()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        keeper = f"from stem_iso.isolate.keeper.keeper import main; main({theirs.fileno()}, {os.getpid()})"
        program = interpreter.code(interpreter.own_path(interpreter.search_path()), keeper)
        command = [sys.executable, *interpreter.keepers_arguments(), "-c", program]
        # A session of its own: Ctrl-C in the program's terminal is the program's business.
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True)
        theirs.close()
        return ours

    def receive(self) -> list[tuple[list[Any], list[int]]]:
        """All that is there. Raises KeeperLost at its end."""
        found: list[tuple[list[Any], list[int]]] = []
        while True:
            try:
                message = protocol.receive(self.socket)
            except BlockingIOError:
                return found
            if message is None:
                raise KeeperLost("the keeper process ended")
            found.append(message)

    def waiting(self) -> bool:
        """Whether there is a message that nobody has read yet."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(0))

    def start(self, number: int, seat: int, fds: tuple[int, ...], prelude: int) -> None:
        """Ask for an isolate; `fds` are its page, socket, stack, stdout and stderr. Closes `prelude`.

        Raises KeeperLost; OSError: not sent.
        """
        try:
            if not protocol.send(self.socket, START, number, seat, fds=(prelude, *fds)):
                raise KeeperLost("the keeper process ended")
        finally:
            os.close(prelude)

    def wake(self) -> None:
        """An earlier limit stands in the table."""
        with suppress(BlockingIOError):  # a keeper that is stopped has a queue full of messages that cause its turn
            protocol.send(self.socket, WAKE)

    def kill(self, number: int) -> bool:
        """Ask for the death of this isolate and all that it started; False: not now, the keeper's queue is full."""
        return self._ask(KILL, number)

    def forward(self, number: int, signal: int) -> None:
        """Ask for a signal to this isolate; lost where the keeper's queue is full."""
        self._ask(FORWARD, number, signal)

    def _ask(self, kind: str, *fields: int) -> bool:
        try:
            protocol.send(self.socket, kind, *fields)
        except BlockingIOError:
            return False
        return True

    def cut_lifeline(self) -> None:
        """With the keeper gone, the kernel kills all isolates that are left: also those that this process may not kill."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def let_go(self) -> None:
        """In a fork of the program: its copy of the lifeline would keep the isolates alive after program and keeper have died."""
        if not self._closed:
            self._closed = True
            self.cut_lifeline()
            os.close(self.socket.detach())

    def close(self) -> None:
        """The keeper sees the end, kills what is left and leaves; one of our own is waited for."""
        self._closed = True
        if self._process is not None:
            # A fork of this program may hold a copy: closing ours alone would not be an end for the keeper. By command the launcher has
            # still to receive GOODBYE.
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.table.close()
        self.cut_lifeline()
        os.close(self.pidfd)
        if self._process is not None:
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def _let_go(link: KeeperConnection | None) -> None:
    if link is not None:
        link.let_go()
