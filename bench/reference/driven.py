"""A driver process from the coordinator's side: requests are sent, answers wait for whoever asks for them."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any

from bench.reference import machine
from bench.systems import System

ROOT = Path(__file__).parent.parent.parent
START, ANSWER = 60.0, 120.0  # seconds


class Broken(Exception):
    """The driver ended, did not get ready, or said that a request failed."""


class Driven:
    """One system under one of its settings, ready. Own it with `with`; its end is bounded."""

    def __init__(
        self, python: Path, system: System, settings: str, folder: Path, *, limit: float, workers: int = 2, redis: str = ""
    ) -> None:
        folder.mkdir(parents=True)
        place = {"settings": dict(system.settings[settings]), "workers": workers, "folder": str(folder), "limit": limit, "redis": redis}
        self.name, self.settings, self.folder = system.name, settings, folder
        self._open: dict[int, Future[dict[str, Any]]] = {}
        self._ids, self._ready = count(1), Future[dict[str, Any]]()
        self._log = (folder / "log").open("wb")
        # A task queue's worker must find the file of its application; a path that stem_iso's sources are on is what a checkout has.
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [str(python), "-m", "bench.driver", system.name, "--place", json.dumps(place)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, cwd=folder, env=environment, start_new_session=True,
        )  # fmt: skip
        os.sched_setaffinity(self.process.pid, machine.for_systems())
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.ready = self._ready.result(START)
        except (Broken, TimeoutError):
            self.close()
            raise Broken(f"{system.name} did not get ready: {self.log()}") from None

    def __enter__(self) -> Driven:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, do: str, **values: Any) -> Future[dict[str, Any]]:
        assert self.process.stdin is not None
        number, answer = next(self._ids), Future[dict[str, Any]]()
        self._open[number] = answer
        try:
            self.process.stdin.write(json.dumps({"do": do, "id": number, **values}) + "\n")
            self.process.stdin.flush()
        except OSError:
            answer.set_exception(Broken(f"{self.name} has ended: {self.log()}"))
        return answer

    def ask(self, do: str, bound: float = ANSWER, **values: Any) -> dict[str, Any]:
        """Raises Broken if the answer is a failure, or does not come."""
        try:
            answer = self.send(do, **values).result(bound)
        except TimeoutError:
            raise Broken(f"{self.name}: no answer to {do} in {bound:g} s") from None
        if "failed" in answer:
            raise Broken(f"{self.name}: {answer['failed']}")
        return answer

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-1500:]

    def close(self) -> None:
        """Asks, then kills; what the driver left is for `observer.end_all`."""
        try:
            assert self.process.stdin is not None
            self.process.stdin.write('{"do": "close"}\n')
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(8)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            if "ready" in message:
                self._ready.set_result(message)
            elif answer := self._open.pop(message.pop("id"), None):
                answer.set_result(message)
        ended = Broken(f"{self.name} has ended")
        for future in [self._ready, *self._open.values()]:
            if not future.done():
                future.set_exception(ended)


def outcome(answer: Future[dict[str, Any]], until: float) -> dict[str, Any]:
    """Of a run: told, word, error; word "nothing" if the caller was told nothing in time."""
    try:
        found = answer.result(max(0.0, until - time.monotonic()))
    except TimeoutError:
        return {"told": None, "word": "nothing", "error": ""}
    except Broken as error:
        return {"told": None, "word": "nothing", "error": str(error)[:300]}
    return found if "word" in found else {"told": None, "word": "nothing", "error": found.get("failed", "")}
