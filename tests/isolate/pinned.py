"""Handlers that look at the cores they run on."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from stem_iso.isolate.linux import POOL_SIZES


def affinity() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def affinity_and_wait(ledger: str, until: str) -> list[int]:
    """Says which cores it has, and keeps them until a file is there."""
    own = affinity()
    Path(ledger).write_text(str(own))
    while not os.path.exists(until):
        time.sleep(0.005)
    return own


def affinity_of_all() -> tuple[list[list[int]], list[int], list[str | None]]:
    """Of each thread, of a child, and the sizes that a library would read."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    threads = [sorted(os.sched_getaffinity(int(each))) for each in os.listdir("/proc/self/task")]
    stop.set()
    thread.join()
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, repr(affinity()).encode())
        os._exit(0)
    os.wait()
    return threads, [int(core) for core in os.read(reader, 4096).decode().strip("[]").split(",")], [os.environ.get(n) for n in POOL_SIZES]
