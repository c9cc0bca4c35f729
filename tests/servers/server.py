"""One redis-server of our own.

In a folder of its own under /tmp (a unix socket's path may have 107 bytes, which pytest's folders exceed), on loopback only, without
persistence unless a test asks. Ports lie below the range from which the kernel deals, so that nobody takes one while its server is down.
"""

from __future__ import annotations

import ctypes
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import redis

from tests.servers.finding import Binary

BOUND = 15.0
BUS = 10_000  # a cluster's nodes talk to each other on port + 10,000
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def free_port() -> int:
    while True:
        port = random.randint(10_500, 21_500)
        try:
            for number in (port, port + BUS):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        return port


def until(condition: Callable[[], bool], what: str, bound: float = BOUND) -> None:
    deadline = time.monotonic() + bound
    while not condition():
        assert time.monotonic() < deadline, f"not within {bound:g} s: {what}"
        time.sleep(0.01)


class Server:
    """Started at once; `folder` and port stay the same over a restart. Call it from the main thread: the server dies with its thread."""

    def __init__(self, binary: Binary, *options: str, aof: str = "") -> None:
        """`options` are redis-server's own, as words of its command line; `aof`: always, everysec, or none."""
        self.binary, self.port = binary, free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="si-redis-"))
        self.path = str(self.folder / "socket")
        self._options = ["--save", "", "--appendonly", "yes" if aof else "no", *(["--appendfsync", aof] if aof else []), *options]
        self._process: subprocess.Popen[bytes] | None = None
        for attempts_left in (4, 3, 2, 1, 0):
            try:
                self.start()
            except AssertionError:
                if "Address already in use" not in self.log or not attempts_left:  # between the search for a port and its use
                    raise
                self.port = free_port()
            else:
                return

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.path}?db=0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def plain(self) -> redis.Redis:
        """A connection of the tests' own, past all that is tested."""
        return redis.Redis(unix_socket_path=self.path, socket_timeout=BOUND, protocol=2)

    def do(self, *words: str | int) -> object:
        """The answer as the server gave it."""
        with self.plain() as plain:
            plain.response_callbacks.clear()
            return plain.execute_command(*words)

    def start(self) -> None:
        command = [self.binary.path, "--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", self.path, "--dir", str(self.folder)]
        command += ["--logfile", str(self.folder / "log"), "--daemonize", "no", *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=_die_with_us)
        until(self._answers, f"{command} answers")

    def stop(self) -> None:
        """Orderly, and gone at return."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As a power cut does it, and gone at return."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Alive for the kernel, which still accepts connections, and dumb."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        self._end(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(BOUND)
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, f"{self.binary.path} ended:\n{self.log}"
        try:
            return bool(self.do("PING"))
        except redis.exceptions.ConnectionError:  # also while it loads its file
            return False


def _die_with_us() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a test run that is killed leaves no server
