"""Workers that a program starts for itself end with the program, also where nobody is left to stop them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from textwrap import dedent

import pytest

from stem_iso import Stem, TaskState
from stem_iso.worker.owned_worker import OwnedWorker
from tests.command.conftest import ROOT
from tests.isolate.calling import BOUND, assert_dead, descendants, pid_in

COMMAND = [sys.executable, "-m", "stem_iso.worker", "-A", "tests.command.app:app", "-c", "2"]
PROGRAM = dedent("""
    import signal, sys
    from stem_iso.worker.owned_worker import OwnedWorker
    worker = OwnedWorker(sys.argv[1:], process_group=0)
    print(worker.pid, flush=True)
    signal.pause()
""")


@pytest.mark.slow
@pytest.mark.repeat
@pytest.mark.parametrize(("number", "gone"), [(signal.SIGKILL, False), (signal.SIGHUP, False), (signal.SIGKILL, True)])
def test_a_worker_ends_with_the_program_that_started_it(tmp_path: Path, number: int, gone: bool) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    broker = f"sqlite:///{folder}/jobs.db"
    environ = {**os.environ, "STEM_ISO_TEST_BROKER": broker}
    with (tmp_path / "log").open("wb") as log, closing(Stem(broker)) as app:
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *COMMAND], cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
        assert program.stdout is not None
        launcher = int(program.stdout.readline())
        handle = app.enqueue("child", {"ledger": str(tmp_path / "ledger")})
        family = [launcher, *descendants(launcher), pid_in(tmp_path / "ledger")]
        if gone:
            shutil.rmtree(folder)
        program.send_signal(number)
        program.wait(BOUND)
        assert_dead(*family, within=BOUND)
        if not gone:
            assert handle.status().state is TaskState.QUEUED


def test_a_worker_ends_with_the_object_that_holds_it(tmp_path: Path) -> None:
    environ = {**os.environ, "STEM_ISO_TEST_BROKER": f"sqlite:///{tmp_path}/jobs.db"}
    with (tmp_path / "log").open("wb") as log:
        worker = OwnedWorker(COMMAND, cwd=ROOT, env=environ, stderr=log)
        pid = worker.pid
        with closing(Stem(environ["STEM_ISO_TEST_BROKER"])) as app:
            assert app.enqueue("echo", {"value": 1}).result(timeout=BOUND) == 1
        held = os.pidfd_open(pid)
        del worker
        end = os.waitid(os.P_PIDFD, held, os.WEXITED)
        os.close(held)
    assert end is not None
    assert (end.si_code, end.si_status) == (os.CLD_EXITED, 0)


@pytest.mark.parametrize("owner", ["77", "two", "1"])
def test_an_owner_that_is_none_is_refused(owner: str) -> None:
    done = subprocess.run([*COMMAND, "--owner", owner], cwd=ROOT, capture_output=True, text=True, timeout=BOUND)
    assert done.returncode == 2
    assert "--owner" in done.stderr
