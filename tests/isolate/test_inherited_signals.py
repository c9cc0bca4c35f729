"""Programs that were started with signals ignored or blocked, as a careless parent leaves them: a pool works as always."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from tests.isolate.calling import BOUND

PROGRAM = dedent("""
    import os, signal, subprocess, sys, time
    from stem_iso import IsolatePool

    if __name__ == "__main__":
        if "itself" in sys.argv:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        with IsolatePool(2, spares=0) as pool:
            neighbour = pool.submit(time.sleep, 0.5)
            print(repr(pool.submit(os._exit, 3).exception()))
            print(pool.submit(subprocess.call, ["sh", "-c", "exit 4"]).result())
            print(pool.submit(subprocess.call, ["sh", "-c", "kill -TERM $$"]).result())
            print(pool.with_limits(hard=0.1).submit(time.sleep, 60).exception())
            print(neighbour.exception())
""")
EXPECTED = "IsolateCrashed(3, None, '', '', False)\n4\n-15\nhard time limit of 0.1 s reached\nNone\n"


def ignore_children() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def ignore_all() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)


def block_all() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


@pytest.mark.repeat
@pytest.mark.parametrize(
    "before",
    [
        pytest.param(ignore_children, id="SIGCHLD ignored"),
        pytest.param(ignore_all, id="ignored", marks=pytest.mark.slow),
        pytest.param(block_all, id="blocked"),
        pytest.param(None, id="by itself", marks=pytest.mark.slow),
    ],
)
def test_a_pool_works_whatever_signals_its_program_inherited(tmp_path: Path, before: Callable[[], None] | None) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    command = [sys.executable, str(path), *(() if before else ("itself",))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, preexec_fn=before)
    assert (done.stdout, done.returncode) == (EXPECTED, 0), done.stderr
