"""The shop of the guide, killed between any two of its steps.

python -m tests.docs.dying                          one order after the other; each one's relay is killed a step later than the last one's
python -m stem_iso.worker -A tests.docs.dying:app   of order n, the first attempt is killed at its step n

The shop is the module SHOP of the working folder. A step is a line, or the return.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from stem_iso.testing import eventually

shop = importlib.import_module(os.environ["SHOP"])
app = shop.app


def die_in(function: str, step_of: Callable[[FrameType], int]) -> None:
    """Kill this process at that step of the shop's function."""
    steps = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal steps
        if frame.f_code.co_name != function or frame.f_code.co_filename != shop.__file__:
            return None
        if event == "call":
            steps = 0
        elif event in ("line", "return"):
            if steps == step_of(frame):
                os.kill(os.getpid(), signal.SIGKILL)
            steps += 1
        return trace

    sys.settrace(trace)


@app.on_isolate_start
def die_once_an_order() -> None:
    die_in("ship", lambda frame: -1 if frame.f_locals["context"].attempt else frame.f_locals["order"] - 1)


def dies(step: int) -> bool:
    """Whether the relay has so many steps."""
    child = os.fork()
    if child == 0:
        die_in("relay", lambda frame: step)
        shop.relay()
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def is_empty() -> bool:
    connection = shop.connect()
    try:
        return bool(connection.execute("SELECT count(*) FROM outbox").fetchone()[0] == 0)
    finally:
        connection.close()


def main() -> None:
    step = 0
    while True:
        shop.place_order(f"customer {step}")
        if not dies(step):
            break
        # It takes what the dead one left, once the database has noticed that it is dead.
        eventually(lambda: shop.relay() == 0 and is_empty())
        step += 1
    print(step, "relays killed")


if __name__ == "__main__":
    main()
