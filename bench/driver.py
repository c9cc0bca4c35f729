"""Driver: one system in its own interpreter, steered by JSON lines. No module of stem_iso is imported here.

    coordinator ──stdin──> {"do": "run", "id": 7, "handler": "sleep", "ledger": "/…/7", "limit": 0.4}
                <─stdout── {"id": 7, "sent": 1234.1, "told": 1234.6, "word": "timeout", "error": "TimeoutError: …"}

    ready                                        once the system can take a task
    run       handler, ledger, limit             one call, in a thread of its own; the answer comes when its caller was told
    echo      count, size                        so many calls: wall and processor seconds
    enqueue   count, size                        so many calls stored: wall seconds
    processes                                    pids: of supervisors, and of what is no descendant of the driver
    restart                                      a worker in place of one that is dead, on the same queue
    reopen                                       a new system in place of one that is broken
    close

stdout is the coordinator's alone: what the system prints goes to stderr, and that to a file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench.systems as systems

CLOSING = 5.0  # seconds a system has to close; what is left then is ended by the observer


class Driver:
    def __init__(self, name: str, place: systems.Place, out: Any) -> None:
        self._make: Callable[[], systems.Adapter] = lambda: systems.adapter(name)(place)
        self._out, self._lock = out, threading.Lock()
        self._system = self._make()

    def send(self, **message: Any) -> None:
        with self._lock:
            self._out.write(json.dumps(message) + "\n")
            self._out.flush()

    def run(self, id: int, handler: str, ledger: str, limit: float | None) -> None:
        system, error, sent = self._system, None, time.monotonic()
        try:
            system.run(handler, ledger, limit)
        except BaseException as raised:
            error = raised
        told = time.monotonic()
        text = "" if error is None else f"{type(error).__name__}: {error}"[:300]
        self.send(id=id, sent=sent, told=told, word=system.word(error), error=text)

    def echo(self, id: int, count: int, size: int) -> None:
        began, cpu = time.monotonic(), processor_seconds()
        self._system.echo(count, b"x" * size)
        self.send(id=id, seconds=time.monotonic() - began, caller_cpu=processor_seconds() - cpu)

    def enqueue(self, id: int, count: int, size: int) -> None:
        began = time.monotonic()
        self._system.enqueue(count, b"x" * size)
        self.send(id=id, seconds=time.monotonic() - began)

    def processes(self, id: int) -> None:
        self.send(id=id, supervisors=self._system.supervisors(), others=self._system.processes())

    def restart(self, id: int) -> None:
        self.send(id=id, started=self._system.restart())

    def reopen(self, id: int) -> None:
        self._close()
        self._system = self._make()
        self.send(id=id)

    def _close(self) -> None:
        """A broken pool may wait for ever in its own shutdown."""
        closing = threading.Thread(target=self._system.close, daemon=True)
        closing.start()
        closing.join(CLOSING)

    def serve(self, requests: Any) -> None:
        self.send(ready=time.monotonic(), python=sys.version.split()[0])
        for line in requests:
            message = json.loads(line)
            if (do := message.pop("do")) == "close":
                break
            threading.Thread(target=self._guard, args=(getattr(self, do), message), daemon=True).start()
        self._close()

    def _guard(self, method: Any, message: dict[str, Any]) -> None:
        try:
            method(**message)
        except Exception as error:  # the coordinator must hear of it, whatever the system raised
            self.send(id=message["id"], failed=f"{type(error).__name__}: {error}"[:300])


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("system")
    parser.add_argument("--place", required=True, help="JSON of bench.systems.Place")
    options = parser.parse_args()
    given = json.loads(options.place)
    requests, out = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # A forked worker closes sys.stdin, and would wait for ever for the lock that a thread holds which reads from it.
    sys.stdin = open(os.devnull)  # noqa: SIM115
    os.dup2(sys.stdin.fileno(), 0)
    Driver(options.system, systems.Place(**{**given, "folder": Path(given["folder"])}), out).serve(requests)
    os._exit(0)  # threads of a system that did not close are no reason to stay


if __name__ == "__main__":
    main()
