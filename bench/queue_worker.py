"""What adapters of queue systems share: a worker that the system's own command starts, and a client in the driver.

    driver ── submit ──> Redis or SQLite <── worker, by `command()`, in the same virtual environment
           <─ outcome ──                       └─ whatever processes and threads it has

Both make the application from one Place, the worker out of its environment: so its command can name `bench.systems.NAME:app`, where `app`
is no variable but what the module's `__getattr__` returns. An adapter is made anew on an empty store: what a broken one left queued would
run in the next.

A task has one attempt everywhere: whoever retries a time-out by himself has that switched off, for the first end is the one to compare.
What a system cannot tell (it keeps no results) `outcome` must not guess: the adapter says so by `results = False`.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from abc import abstractmethod
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bench.systems as systems

ENVIRONMENT = "BENCH_PLACE"
ROOT = Path(__file__).parent.parent
LIMITS = tuple(number / 10 for number in (*range(1, 31), 200))  # seconds, for whoever must declare them beforehand
ATTEMPTS = 5  # at a first task: some sweep away what they are given while they start
ENDING = 1.0  # seconds a worker has to stop; several wait for their tasks, of which some never end


class Failed(Exception):
    """The system told of an end that is no success. `kind` is the exception's class name, or the state, in the system's own words."""

    def __init__(self, kind: str, text: object = "") -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class QueueAdapter(systems.Adapter):
    """A system with a worker of its own. `word` reads what `Failed` holds."""

    @staticmethod
    @abstractmethod
    def application(place: systems.Place) -> Any:
        """What the worker serves and the client submits to; made once in each process."""

    @abstractmethod
    def command(self) -> list[str]:
        """Starts the worker, by the interpreter that runs this."""

    @abstractmethod
    def submit(self, task: str, arguments: tuple[Any, ...], limit: float | None) -> Any:
        """Store a call of `bench.handlers.run` ("run") or `bench.handlers.echo` ("echo"); returns when it is stored."""

    @abstractmethod
    def outcome(self, handle: Any) -> object:
        """Wait for the end that the system tells; raises it if it is none of success."""

    def __init__(self, place: systems.Place) -> None:
        clear(place.redis)
        self.place = replace(place, folder=Path(tempfile.mkdtemp(dir=place.folder)))
        self.app = self.application(self.place)
        self._worker = self._started()
        for _ in range(ATTEMPTS):
            with suppress(Failed):
                self.outcome(self.submit("echo", ("",), None))
                return
        raise RuntimeError(f"{type(self).__module__}: not one echo of {ATTEMPTS} succeeded")

    def _started(self) -> subprocess.Popen[bytes]:
        """As in an activated virtual environment: some start `python` by PATH."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        environment = os.environ | {ENVIRONMENT: encode(self.place), "PYTHONPATH": str(ROOT), "PATH": path}
        return subprocess.Popen(self.command(), env=environment, cwd=self.place.folder, stdin=subprocess.DEVNULL)

    def restart(self) -> bool:
        if self._worker.poll() is None:
            return False
        self._worker = self._started()
        return True

    def run(self, handler: str, ledger: str, limit: float | None) -> object:
        return self.outcome(self.submit("run", (handler, ledger), limit))

    def echo(self, count: int, payload: bytes) -> None:
        for handle in [self.submit("echo", (payload,), None) for _ in range(count)]:
            self.outcome(handle)

    def enqueue(self, count: int, payload: bytes) -> None:
        for _ in range(count):
            self.submit("echo", (payload,), None)

    def supervisors(self) -> list[int]:
        return [self._worker.pid] if self._worker.poll() is None else []

    def close(self) -> None:
        self._worker.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._worker.wait(ENDING)
        self._worker.kill()
        self._worker.wait()

    def word(self, error: BaseException | None) -> systems.Word:
        if not isinstance(error, Failed):  # an error of its client, whatever its name
            return "success" if error is None else "error"
        for word, known in (("memory", self.memory), ("crash", self.crashes), ("timeout", self.timeouts)):
            if error.kind in known:
                return word  # type: ignore[return-value]
        return "error"


class AsyncQueueAdapter(QueueAdapter):
    """One whose client wants an event loop: its coroutines run on one, in a thread of its own."""

    TOGETHER = 100  # calls that are stored, or waited for, at once

    @abstractmethod
    async def submitting(self, task: str, arguments: tuple[Any, ...], limit: float | None) -> Any: ...

    @abstractmethod
    async def ending(self, handle: Any) -> object: ...

    def __init__(self, place: systems.Place) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        super().__init__(place)

    def submit(self, task: str, arguments: tuple[Any, ...], limit: float | None) -> Any:
        return self._wait(self.submitting(task, arguments, limit))

    def outcome(self, handle: Any) -> object:
        return self._wait(self.ending(handle))

    def run(self, handler: str, ledger: str, limit: float | None) -> object:
        async def whole() -> object:
            return await self.ending(await self.submitting("run", (handler, ledger), limit))

        return self._wait(whole())

    def echo(self, count: int, payload: bytes) -> None:
        async def whole() -> None:
            handles = await self._many(count, payload)
            for first in range(0, count, self.TOGETHER):
                await asyncio.gather(*map(self.ending, handles[first : first + self.TOGETHER]))

        self._wait(whole())

    def enqueue(self, count: int, payload: bytes) -> None:
        self._wait(self._many(count, payload))

    async def _many(self, count: int, payload: bytes) -> list[Any]:
        handles: list[Any] = []
        while len(handles) < count:
            some = min(self.TOGETHER, count - len(handles))
            handles += await asyncio.gather(*[self.submitting("echo", (payload,), None) for _ in range(some)])
        return handles

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


@cache
def served(adapter: type[QueueAdapter]) -> Any:
    """The application, in a worker."""
    return adapter.application(worker_place())


def worker_place() -> systems.Place:
    given: Mapping[str, Any] = json.loads(os.environ[ENVIRONMENT])
    return systems.Place(**{**given, "folder": Path(given["folder"])})


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", *map(str, arguments)]


def declared(limit: float | None) -> float | None:
    """The first of LIMITS that is not below."""
    return None if limit is None else next(each for each in LIMITS if each >= limit - 1e-6)


def as_text(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """For systems that write JSON."""
    return tuple(each.decode("latin-1") if isinstance(each, bytes) else each for each in arguments)


def encode(place: systems.Place) -> str:
    return json.dumps(asdict(place) | {"folder": str(place.folder)})


def clear(url: str) -> None:
    """Empty the database. By hand, since not every virtual environment has the same client."""
    if not url:
        return
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379)) as server:
        server.sendall(f"SELECT {parts.path.strip('/') or 0}\r\nFLUSHDB\r\n".encode())
        answer = b""
        while answer.count(b"\r\n") < 2:
            answer += server.recv(4096)
    if answer != b"+OK\r\n" * 2:
        raise RuntimeError(f"the database {url} was not emptied: {answer!r}")
