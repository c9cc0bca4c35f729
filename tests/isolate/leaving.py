"""What user code may set up for the end of its process."""

from __future__ import annotations

import atexit
import os
import time
from multiprocessing import util
from pathlib import Path


def at_exit(folder: str) -> int:
    """Writes a file at the end of the process, and another by multiprocessing's own way."""
    path = Path(folder) / str(os.getpid())
    atexit.register(lambda: path.write_text("left"))
    util.Finalize(None, Path(f"{path}.finalized").write_text, args=("left",), exitpriority=1)
    return os.getpid()


def never_ends(folder: str) -> int:
    atexit.register(time.sleep, 1000)
    return at_exit(folder)


def spin() -> None:
    while True:
        time.sleep(0.01)


def meet(own: str, other: str) -> int:
    """Two of them run in two processes."""
    Path(own).touch()
    while not Path(other).exists():
        time.sleep(0.001)
    return os.getpid()
