"""Messages between core and keeper on their SEQPACKET socket; descriptors travel beside them (SCM_RIGHTS).

keeper -> core   HELLO [pid]                     + table, lifeline's write end
                 STARTED [isolate, pid, hides, n]         + pidfd, and n of its files in /proc where that hides processes (`MemoryReader`)
                 FAILED [isolate, text]
                 EXITED [isolate, code, status, killed, signalled, died]      after the sweep; code and status as in waitid(2)
                 STUCK [isolate, pid, title, why]      what keeps that EXITED from coming; 0 for the isolate: nobody knows whose it is
                 SIGNAL [count]                  by command: how many TERM or INT the launcher has had; QUIT says 2 at once
core -> keeper   START [isolate, seat]           + prelude (memfd), page, socket, stack, stdout, stderr
                 WAKE                            an earlier limit stands in the table
                 KILL [isolate]                  the core may not
                 FORWARD [isolate, signal]       the same for any other signal
                 TURNED [state]                  by command, where a service manager wants to know: the core's loop has come round
                 GOODBYE [code]                  by command: the core leaves on purpose, with this exit code
"""

from __future__ import annotations

import json
import os
import socket
from array import array
from functools import reduce
from typing import Any

from stem_iso.isolate import interpreter
from stem_iso.isolate.linux import POOL_SIZES

LARGEST = 1 << 18
MOST_FDS = 8
LEAST_SECRET = 4  # characters: what is shorter stands anywhere by chance

HELLO, STARTED, FAILED, EXITED, STUCK, SIGNAL = "hello", "started", "failed", "exited", "stuck", "signal"
START, WAKE, KILL, FORWARD, TURNED, GOODBYE = "start", "wake", "kill", "forward", "turned", "goodbye"


def send(link: socket.socket, kind: str, *fields: Any, fds: tuple[int, ...] = ()) -> bool:
    """False if the other side is gone. Raises BlockingIOError where the socket does not block and has no room."""
    body = json.dumps([kind, *fields]).encode()
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
    try:
        link.sendmsg([body], ancillary)
    except (BrokenPipeError, ConnectionError):
        return False
    return True


def receive(link: socket.socket) -> tuple[list[Any], list[int]] | None:
    """[kind, fields...] and descriptors; None at the end, and for bytes that are no message: their sender is not to be relied on.

    Raises BlockingIOError where the socket does not block and nothing is there.
    """
    for _ in range(2):
        try:
            body, ancillary, _, _ = link.recvmsg(LARGEST, socket.CMSG_SPACE(MOST_FDS * 4), socket.MSG_CMSG_CLOEXEC)
            break
        except ConnectionResetError:
            continue  # the other side left with a word of ours unread: the kernel says so once, ahead of what it had still sent
        except ConnectionError:
            return None
    else:
        return None
    if not body:
        return None
    fds = array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    try:
        message = json.loads(body)
        if isinstance(message[0], str):
            return message, list(fds)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, MemoryError):
        pass
    for fd in fds:
        os.close(fd)
    return None


def prelude(secrets: tuple[str, ...] = (), pool_threads: int = 1) -> int:
    """A memfd with what an isolate needs to know of this process: its flags, search path, folder, environment and argv, as they are now.

    Variables named in `secrets` stay behind: one that the isolate had at its start would stand in its /proc/self/environ for ever. Nor does
    argv say what they say.
    Native thread pools have `pool_threads` threads, unless somebody has sized them already.
    """
    env = {name: value for name, value in os.environ.copy().items() if name not in secrets}
    if not any(name in env for name in POOL_SIZES):
        env |= dict.fromkeys(POOL_SIZES, str(pool_threads))
    hidden = [value for name in secrets if len(value := os.environ.get(name, "")) >= LEAST_SECRET]
    program = interpreter.program()
    program = program._replace(argv=[reduce(lambda text, value: text.replace(value, "***"), hidden, each) for each in program.argv])
    flags, own_path = interpreter.arguments(), interpreter.own_path(program.path)
    content = {"program": program, "flags": flags, "own_path": own_path, "cwd": interpreter.working_folder(), "env": env}
    body = json.dumps(content).encode()
    fd = os.memfd_create("stem_iso-prelude", os.MFD_CLOEXEC)
    os.write(fd, body)
    return fd


def read_prelude(fd: int) -> dict[str, Any]:
    body = os.pread(fd, os.fstat(fd).st_size, 0)
    content: dict[str, Any] = json.loads(body)
    return content
