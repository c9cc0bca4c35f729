"""The keeper's end of the isolates' resource trackers: a pipe for each isolate, and a process (`resource_tracker`) for each that uses it.

    start of an isolate ── pipe ──> the isolate has its writer; the first line in it ──> the tracker's process starts, and has its reader

Most isolates never register anything; a process for each would be 8 MiB.

Not promised: where the keeper itself is killed before it has read of the first line, nobody has the pipe, and what was registered stays.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import suppress
from time import monotonic, sleep

from stem_iso.isolate import interpreter
from stem_iso.isolate.keeper import process_tree


class Trackers:
    """Used by the keeper's thread."""

    def __init__(self, poll: select.poll, lifeline: int) -> None:
        self._poll, self._lifeline = poll, lifeline
        self._readers: set[int] = set()
        self._pids: set[int] = set()

    def pipe(self) -> int:
        """For an isolate that is being started: the writer, which is the caller's to close."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self._readers.add(reader)
        self._poll.register(reader, select.POLLIN)
        return writer

    def __contains__(self, fd: int) -> bool:
        return fd in self._readers

    def event(self, fd: int, flags: int) -> None:
        """There is a first line in a pipe; or everybody has closed it, and nobody ever wrote."""
        self._poll.unregister(fd)
        self._readers.discard(fd)
        try:
            if flags & select.POLLIN:
                self._start(fd)
        finally:
            os.close(fd)

    def _start(self, reader: int) -> None:
        program = f"from stem_iso.isolate.keeper.resource_tracker import main; main({reader}, {self._lifeline})"
        command = [sys.executable, *interpreter.keepers_arguments(), "-c", interpreter.code(sys.path, program)]
        from multiprocessing.util import spawnv_passfds  # a producer that only looks at the name of the pool need not have it

        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT))
        try:
            with suppress(OSError):  # no process, no memory: what the isolate leaves stays
                self._pids.add(
                    spawnv_passfds(os.fsencode(sys.executable), [os.fsencode(each) for each in command], (reader, self._lifeline))
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def pids(self) -> set[int]:
        """Those that live; what has ended is reaped."""
        self._pids -= {pid for pid in self._pids if process_tree.reaped(pid)}
        return self._pids

    def finish(self, within: float) -> None:
        """When all isolates are dead: let their trackers remove what is left, and end."""
        for fd, flags in self._poll.poll(0):
            if fd in self._readers:
                self.event(fd, flags)
        until = monotonic() + within
        while self.pids and monotonic() < until:
            sleep(0.002)
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        for fd in self._readers:
            os.close(fd)
