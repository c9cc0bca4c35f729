"""A redis-server of the bench's own: on a free port of the loopback, in a folder that goes with it, killed by its pid and never by name.

The program is that of STEM_ISO_BENCH_REDIS_SERVER, else redis-server on PATH.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import redis

READY = 20.0  # seconds until it answers, an append-only file read meanwhile


class RedisServer:
    """Started by `start`, on the same port and folder each time, so that what was stored is there again."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port, self._options = folder, _free_port(), options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> RedisServer:
        command = [_program(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "", *self._options]
        with (self.folder / "redis.log").open("ab") as log:
            # A session of its own: Ctrl-C is for the bench, which then stops it.
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + READY
        while not self._answers():
            assert self.process.poll() is None and time.monotonic() < end, (self.folder / "redis.log").read_text()
            time.sleep(0.01)
        return self

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def client(self) -> Any:
        return redis.Redis(port=self.port, decode_responses=True, socket_timeout=10)

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self.port, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:  # refused, or still loading
            return False


def _program() -> str:
    found = os.environ.get("STEM_ISO_BENCH_REDIS_SERVER") or shutil.which("redis-server")
    if not found:
        raise SystemExit("redis-server is not on PATH: install it (Debian: apt install redis-server), or set STEM_ISO_BENCH_REDIS_SERVER")
    return found


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
