"""Workers that were started with signals ignored or blocked: tasks end as always, and TERM still stops the worker."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from textwrap import dedent

import pytest

from stem_iso import TaskFailed
from tests.command.conftest import ROOT, Command
from tests.isolate.test_inherited_signals import block_all, ignore_all, ignore_children

pytestmark = pytest.mark.repeat
Start = Callable[..., Command]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "number"),
    [(ignore_children, signal.SIGTERM), (ignore_all, signal.SIGINT), (block_all, signal.SIGTERM), (block_all, signal.SIGHUP)],
)
def test_a_worker_works_and_stops_whatever_signals_it_inherited(command: Start, before: Callable[[], None], number: int) -> None:
    worker = command(before=before).ready()
    crash = worker.enqueue("leave", args={"code": 3})
    with pytest.raises(TaskFailed) as caught:
        crash.result(timeout=30)
    assert caught.value.error is not None
    assert caught.value.error.exit_code == 3
    for name in ("shell", "inline.shell"):
        assert worker.enqueue(name, args={"line": "exit 4"}).result(timeout=30) == 4
        assert worker.enqueue(name, args={"line": "kill -TERM $$"}).result(timeout=30) == -signal.SIGTERM
    worker.send(number)
    assert worker.wait() == 0
    assert "core process died" not in worker.log.read_text()


@pytest.mark.slow
def test_hangup_stays_ignored_under_nohup(command: Start) -> None:
    worker = command(before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)).ready()
    worker.send(signal.SIGHUP)
    worker.ready()
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0


def test_a_worker_stops_although_its_program_was_started_with_signals_blocked() -> None:
    program = dedent("""
        import signal
        from stem_iso import Stem, Worker

        app = Stem("memory://")
        app.signals.worker_ready.connect(lambda _: print("ready", flush=True))
        Worker(app, concurrency=1, spares=0).run()
        print(signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    """)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT, preexec_fn=block_all)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.communicate(timeout=30)[0] == "True\n"
    finally:
        process.kill()
