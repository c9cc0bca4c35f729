"""At their limit they have a process that cannot be killed for a while: it costs their own end alone, which is known when it is gone.

To be run where somebody lets it go again (`tests.hostile.held`, `bench.hostile`).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from entrypoints.hostile.company import linger
from entrypoints.hostile.trace import Trace, hostile

NOBODY = 65534
PLACE = "frozen"  # beside the ledger: a file that holds the path of one whose file system answers nothing


@hostile(soft=0.9, hard=1.0)
def foreign_child(trace: Trace) -> None:
    """A child becomes another user, whom a worker without root's rights may not signal; `sudo` in a handler does the like."""

    def child() -> None:
        os.setuid(NOBODY)
        linger()

    trace.fork(child)
    linger()


@hostile(soft=0.9, hard=1.0)
def frozen_child(trace: Trace) -> None:
    """A child waits for a file system that does not answer: uninterruptible sleep, in which no signal reaches it."""
    assert trace.ledger is not None
    path = Path(trace.ledger).with_name(PLACE).read_text(encoding="utf-8")
    subprocess.Popen(["stat", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=trace.record)
    linger()


@hostile(soft=1.9, hard=2.0)
def debugged(trace: Trace) -> None:
    """Somebody traces it, as a debugger does: the kernel keeps the dead one until the tracer has looked."""
    linger()
