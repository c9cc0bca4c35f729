"""Somebody who traces a process that is not his child, as a debugger does."""

from __future__ import annotations

import subprocess
import sys

import pytest

TRACER = """
import sys
from entrypoints.linux import seize
if not seize(int(sys.argv[1])): sys.exit("not allowed")
print("seized", flush=True); sys.stdin.read()
"""


def trace(pid: int) -> subprocess.Popen[str]:
    """A process beside us that holds this one as a debugger does, until its stdin is closed."""
    tracer = subprocess.Popen([sys.executable, "-c", TRACER, str(pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert tracer.stdout is not None
    if tracer.stdout.readline() != "seized\n":
        pytest.skip("this machine lets nobody trace a process that is not its child (ptrace_scope)")
    return tracer
