"""The client of the keeper: asks for isolates and kills, and reads the keeper's reports.

    launch ── START ──> keeper ── STARTED, pidfd ──> Started
    kill, forward, wake ──>    ├─ FAILED ──────────> NotStarted: there never was a process
                               ├─ STUCK ───────────> Stuck: something of it does not die
                               └─ EXITED ──────────> Exited, after the sweep

A program that embeds a worker or a pool starts a keeper of its own, and another where that is lost (`reconnect`); by command the keeper is
the launcher, and hands its socket down.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from stem_iso.isolate import interpreter
from stem_iso.isolate.keeper import protocol
from stem_iso.isolate.keeper.keeper import SEATS
from stem_iso.isolate.keeper.protocol import EXITED, FAILED, FORWARD, HELLO, KILL, START, STARTED, STUCK, WAKE
from stem_iso.isolate.linux import fill_standard_descriptors
from stem_iso.isolate.shared_row import Table

HELLO_LIMIT = 30.0  # seconds for the keeper's first message; it takes 20 ms on an idle machine


class KeeperLost(Exception):
    """The keeper is gone, or never came."""


class Started(NamedTuple):
    """The process of an isolate is there. `fds`: its pidfd, and its files in /proc where that hides processes, the reader's to close; none
    where this process had no descriptor free."""

    number: int
    pid: int
    hides: bool  # /proc hides processes
    shown: bool  # not this one
    fds: tuple[int, ...]


class NotStarted(NamedTuple):
    """There never was a process."""

    number: int
    why: str


class Exited(NamedTuple):
    """The process of an isolate has ended, and its descendants are dead. Fields as in `protocol`."""

    number: int
    code: int
    status: int
    killed: list[tuple[int, str]]
    signalled_at: float
    died_at: float


class Stuck(NamedTuple):
    """This process does not die. `number`: its isolate's; 0: nobody knows whose it is."""

    number: int
    pid: int
    title: str
    why: str


class LauncherMessage(NamedTuple):
    """By command: not about isolates."""

    kind: str
    fields: list[Any]


KeeperMessage = Started | NotStarted | Exited | Stuck | LauncherMessage


class KeeperClient:
    """Talks to one keeper at a time. Used under the engine's lock, but for `wake`, which any sender of a call may use."""

    def __init__(self, given: socket.socket | None = None) -> None:
        self._seats = list(range(SEATS))  # the free rows of the table
        self._closed = True
        self._connect(given)
        own = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _let_go(own()))

    def _connect(self, given: socket.socket | None) -> None:
        self._process: subprocess.Popen[bytes] | None = None
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
        self._closed = False

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

    def reconnect(self) -> None:
        """Start another keeper in place of the one that was lost. Raises KeeperLost."""
        self.close()
        self._connect(None)

    # -- reports -------------------------------------------------------------------------------------------------------------------

    def receive(self) -> Iterator[KeeperMessage]:
        """All that is there. Raises KeeperLost at its end."""
        while True:
            try:
                received = protocol.receive(self.socket)
            except BlockingIOError:
                return
            if received is None:
                raise KeeperLost("the keeper process ended")
            yield _message(*received)

    def has_message(self) -> bool:
        """Whether there is a message that nobody has read yet."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(0))

    # -- requests ------------------------------------------------------------------------------------------------------------------

    @property
    def free_seat(self) -> int:
        """A row in the table; `launch` takes it."""
        return self._seats[-1]

    def give_back(self, seat: int) -> None:
        self._seats.append(seat)

    def launch(self, number: int, fds: tuple[int, ...], secrets: tuple[str, ...], pool_threads: int) -> None:
        """Ask for an isolate in the free seat. `fds` are its page, socket, stack, stdout and stderr; the others as in `protocol.prelude`.

        Raises KeeperLost; OSError, MemoryError, and what comes of a sys.argv that is no list of texts: not sent.
        """
        seat = self._seats.pop()
        prelude = protocol.prelude(secrets, pool_threads)
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
        return self._request(KILL, number)

    def forward(self, number: int, signal: int) -> None:
        """Ask for a signal to this isolate; lost where the keeper's queue is full."""
        self._request(FORWARD, number, signal)

    def _request(self, kind: str, *fields: int) -> bool:
        try:
            protocol.send(self.socket, kind, *fields)
        except BlockingIOError:
            return False
        return True

    # -- the end -------------------------------------------------------------------------------------------------------------------

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
        """The keeper sees the end, kills what is left and leaves; one of our own is waited for. Again where no other could be started."""
        self._closed = True
        if self._process is not None:
            # A fork of this program may hold a copy: closing ours alone would not be an end for the keeper. By command the launcher has
            # still to receive GOODBYE.
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.table.close()
        self.cut_lifeline()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        if self._process is not None:
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def _message(message: list[Any], fds: list[int]) -> KeeperMessage:
    kind, *fields = message
    if kind == EXITED:
        return Exited(*fields)
    if kind == FAILED:
        return NotStarted(*fields)
    if kind == STUCK:
        return Stuck(*fields)
    if kind != STARTED:
        return LauncherMessage(kind, fields)
    number, pid, hides, shown = fields
    if len(fds) != 1 + shown:  # no descriptor was free for some
        for fd in fds:
            os.close(fd)
        fds = []
    return Started(number, pid, hides, bool(shown), tuple(fds))


def _let_go(client: KeeperClient | None) -> None:
    if client is not None:
        client.let_go()
