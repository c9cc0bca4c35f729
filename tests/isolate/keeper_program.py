"""Programs whose only thread is a keeper, driven turn by turn, so that the order of what it meets is certain.

argv: the name of a function here. Each prints a line for what has come to pass. The keeper takes each child of its process for an isolate
or an orphan, so it needs a process of its own.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from typing import Any

from stem_iso.isolate.keeper import keeper as keeper_module
from stem_iso.isolate.keeper import process_tree, protocol
from stem_iso.isolate.keeper.keeper import Child, Keeper
from stem_iso.isolate.linux import become_subreaper
from stem_iso.isolate.shared_row import Page
from tests.isolate.calling import BOUND, eventually

NUMBER, SEAT = 7, 0


def print_line(line: object) -> None:
    print(line, flush=True)


class Core:
    """What stands at the other end of the keeper's socket."""

    def __init__(self) -> None:
        become_subreaper()
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link.setblocking(False)
        self.keeper = Keeper(theirs)
        assert self.received() is not None, "no HELLO came"

    def received(self) -> list[Any] | None:
        try:
            found = protocol.receive(self.link)
        except BlockingIOError:
            return None
        assert found is not None, "the keeper closed the link"
        message, fds = found
        for fd in fds:
            os.close(fd)
        return message

    def turn(self) -> None:
        """One turn, which waits for nothing."""
        self.keeper.step(until=0.0)

    def reported(self) -> list[Any]:
        """The next message, after as many turns as it takes."""
        end = time.monotonic() + BOUND
        while (message := self.received()) is None:
            assert time.monotonic() < end, "the keeper reports nothing"
            self.turn()
        return message


def forked(run: Any) -> int:
    """A child that runs this, and ends."""
    if (pid := os.fork()) == 0:
        try:
            run()
        finally:
            os._exit(0)
    return pid


def pause() -> None:
    while True:
        signal.pause()


def isolate_with_a_child() -> tuple[Child, int]:
    """In place of an isolate: a process with one child, which the kernel reaps, so that nothing of it falls to the keeper."""
    reader, writer = os.pipe()

    def run() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        os.write(writer, forked(pause).to_bytes(4, "little"))
        pause()

    pid = forked(run)
    child = int.from_bytes(os.read(reader, 4), "little")
    os.close(reader)
    os.close(writer)
    page = os.memfd_create("page")
    os.ftruncate(page, Page.SIZE)
    found = Child(NUMBER, SEAT, pid, Page(page))
    os.close(page)
    return found, child


def killed_while_it_is_reaped() -> None:
    """The kill has a step to go when its isolate, killed by somebody else, is reaped: the step's time comes afterwards."""
    core = Core()
    isolate, child = isolate_with_a_child()
    core.keeper.adopt(isolate)
    stopped_at = time.monotonic()
    keeper_module.monotonic = lambda: stopped_at  # no time passes for the keeper: a kill that pauses goes on in no turn
    protocol.send(core.link, protocol.KILL, NUMBER)
    core.turn()
    eventually(lambda: not os.path.exists(f"/proc/{child}"), "the kill did not begin")
    print_line(f"its isolate is dead: {process_tree.is_dead(isolate.pid)}")
    os.kill(isolate.pid, signal.SIGKILL)
    kind, number, code, status, *_ = core.reported()
    print_line(f"{kind} {number} {code == os.CLD_KILLED} {status}")
    print_line(f"it is reaped: {not os.path.exists(f'/proc/{isolate.pid}')}")
    keeper_module.monotonic = time.monotonic
    core.turn()
    print_line("the keeper goes on")


def orphan_that_lives() -> None:
    """A turn that meets an orphan kills it, and waits neither for that nor for its death."""
    core = Core()
    orphan = forked(pause)
    core.turn()
    print_line("the turn has ended")
    while os.path.exists(f"/proc/{orphan}"):
        core.keeper.step(time.monotonic() + 0.01)
    print_line("it is reaped")


if __name__ == "__main__":
    globals()[sys.argv[1]]()
