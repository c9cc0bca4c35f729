"""A web server in a process of its own, on a free port of loopback, and what it holds of the machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.command.conftest import ROOT
from tests.isolate.calling import eventually

LISTENS = re.compile(r"(?:running on|Listening at:) http://127\.0\.0\.1:(\d+)")  # uvicorn; gunicorn


class WebServer:
    """`arguments`: of Python, with a port 0."""

    def __init__(
        self, folder: Path, *arguments: str, broker: str, cwd: Path = ROOT, ready: Callable[[str], bool] = lambda log: True
    ) -> None:
        self._log = folder / "web.log"
        environment = {**os.environ, "STEM_ISO_BROKER": broker, "PYTHONPATH": os.fspath(ROOT), "PYTHONUNBUFFERED": "1"}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *arguments], cwd=cwd, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        eventually(lambda: self.process.poll() is not None or (LISTENS.search(self.log) and ready(self.log)), "no web server", 60)
        found = LISTENS.search(self.log)
        assert self.process.poll() is None and found, self.log
        self.url = f"http://127.0.0.1:{found[1]}"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


@contextmanager
def web_server(folder: Path, *arguments: str, broker: str, **given: object) -> Iterator[WebServer]:
    server = WebServer(folder, *arguments, broker=broker, **given)  # type: ignore[arg-type]
    try:
        yield server
    finally:
        server.close()


def threads(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def descriptors(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def sockets(pid: int | str) -> set[str]:
    """Of TCP, by their inodes: two processes that share one have one of these in common."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:  # closed meanwhile
            continue
        found.add(target)
    of_tcp = (line.split()[9] for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:])
    return found & {f"socket:[{inode}]" for inode in of_tcp}
