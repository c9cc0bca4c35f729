"""The resource tracker of one isolate: removes the semaphores, shared memory and folders that it had made and not removed when it ended.

    isolate and what it starts ── "REGISTER:/mp-x1:semaphore" ──> pipe ──> this process ── end of file ──> unlink what is left

multiprocessing's own tracker, loky's and joblib's are children of whoever uses them, and are killed with the tree of a killed call before
they can remove anything. This one is the keeper's child (`tracker_table`), stands for all three, and ends with the last process of the
tree.

Rules
 1. Semaphores and shared memory are registered or not; what loky counts (semlock, file, folder) is removed when its count is back at zero.
 2. Shared memory is registered by whoever attaches to it, too. Only what was made in the isolate is removed: CREATED says so
    (`child.registration`), and comes from the isolate and its forks. What others made is theirs.
 3. A name is removed only if it still is the file that it was when it was registered.
 4. It does what the lines say and no more; a line that cannot be read is passed over.
"""

from __future__ import annotations

import base64
import json
import os
import select
import signal
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic

COUNTED = frozenset({"semlock", "file", "folder"})
IN_MEMORY = {"semaphore": "/dev/shm/sem.", "semlock": "/dev/shm/sem.", "shared_memory": "/dev/shm/"}
LONGEST_LINE = 1 << 16
LAST_WORDS = 1.0  # seconds after core and keeper have died: somebody else may hold the pipe open

Key = tuple[str, str]  # kind and name
Identity = tuple[int, int]


class Register:
    """What is registered now."""

    def __init__(self) -> None:
        self._counts: dict[Key, int] = {}
        self._files: dict[Key, Identity | None] = {}
        self._created: dict[str, Identity | None] = {}  # shared memory

    def line(self, line: bytes) -> None:
        command, kind, name = decode(line)
        key = kind, name
        if command == "CREATED":
            self._created[name] = identity(path_of(kind, name))
        elif command == "REGISTER":
            known = self._counts.get(key, 0)
            self._counts[key] = known + 1 if kind in COUNTED else 1
            if not known:
                self._files[key] = self._created.get(name) if kind == "shared_memory" else identity(path_of(kind, name))
        elif command == "UNREGISTER":
            self._forget(key)
        elif command == "MAYBE_UNLINK" and key in self._counts:
            self._counts[key] -= 1
            if self._counts[key] <= 0:
                self._remove(key)

    def remove_all(self) -> None:
        """Folders last: what is registered may lie in one."""
        for key in sorted(self._counts, key=lambda key: key[0] == "folder"):
            self._remove(key)

    def _forget(self, key: Key) -> Identity | None:
        self._counts.pop(key, None)
        if key[0] == "shared_memory":
            self._created.pop(key[1], None)
        return self._files.pop(key, None)

    def _remove(self, key: Key) -> None:
        kind, name = key
        path, known = path_of(kind, name), self._forget(key)
        if path is None or known is None or identity(path) != known:
            return
        with suppress(OSError):
            if kind == "folder":
                import shutil

                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)


def decode(line: bytes) -> tuple[str, str, str]:
    """Command, kind and name, in either of the forms that the standard library writes. Raises ValueError, KeyError."""
    if line.startswith(b"{"):
        message = json.loads(line)
        name = base64.urlsafe_b64decode(message.get("base64_name", "")).decode("utf-8", "surrogateescape")
        return str(message["cmd"]), str(message["rtype"]), name
    command, _, rest = line.decode("utf-8", "surrogateescape").partition(":")
    name, _, kind = rest.rpartition(":")
    return command, kind, name


def path_of(kind: str, name: str) -> str | None:
    """None for what is no file of that kind."""
    if kind in IN_MEMORY:
        bare = name.removeprefix("/")
        return IN_MEMORY[kind] + bare if bare and "/" not in bare else None
    return name if kind in ("file", "folder") and os.path.isabs(name) else None


def identity(path: str | None) -> Identity | None:
    if path is None:
        return None
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def lines(pipe: int, lifeline: int) -> Iterator[bytes]:
    """Until everybody has closed the pipe, or core and keeper are gone and a second has passed."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    poll.register(lifeline, 0)  # its hang-up is all it has to say
    until, rest = None, b""
    while until is None or monotonic() < until:
        for fd, _ in poll.poll(None if until is None else 50):
            if fd == lifeline:
                until = monotonic() + LAST_WORDS
                poll.unregister(lifeline)
                continue
            data = os.read(pipe, LONGEST_LINE)
            if not data:
                return
            *whole, rest = (rest + data).split(b"\n")
            yield from whole
            rest = rest[-LONGEST_LINE:]


def main(pipe: int, lifeline: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    register = Register()
    for line in lines(pipe, lifeline):
        with suppress(Exception):  # a handler can write here whatever it likes
            register.line(line)
    register.remove_all()
