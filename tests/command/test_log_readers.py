"""Whoever reads the log of a worker may stall: a terminal with Ctrl-S, a container's log driver. That is no reason to hang, nor to die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import pytest

from stem_iso import Stem, TaskState
from tests.command.conftest import ROOT, Command
from tests.command.test_stopping import started
from tests.isolate.calling import eventually

Start = Callable[..., Command]

LOGGING = """
import logging.config

logging.config.dictConfig(
    {"version": 1, "handlers": {"own": {"class": "logging.StreamHandler"}}, "root": {"level": "DEBUG", "handlers": ["own"]}}
)
from tests.command.app import app
"""


@pytest.fixture
def stalled() -> Iterator[int]:
    """The write end of a full pipe that nobody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b".")
    os.set_blocking(writer, True)
    yield writer
    os.close(reader)
    os.close(writer)


@pytest.mark.slow
@pytest.mark.repeat
@pytest.mark.parametrize("options", [("-l", "debug"), ("-l", "debug", "--log-format", "json"), ("own handlers",)], ids=" ".join)
def test_a_stalled_reader_holds_up_no_task_and_no_stop(command: Start, tmp_path: Path, stalled: int, options: tuple[str, ...]) -> None:
    application = "tests.command.app:app"
    if options == ("own handlers",):
        (tmp_path / "logging_app.py").write_text(LOGGING)
        application, options = "logging_app:app", ()
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    worker = command("--shutdown-timeout", "0.5", *options, application=application, output=stalled, env=env).ready()
    assert worker.enqueue("inline.look", args={}).result(timeout=30)
    ledger = tmp_path / "ledger"
    handle = worker.enqueue("nap", args={"ledger": str(ledger), "seconds": 1000})
    started(ledger)
    worker.send(signal.SIGTERM)
    assert worker.wait(30) == 0
    status = handle.status()
    assert (status.state, status.redeliveries) == (TaskState.QUEUED, 0)


def test_lines_for_which_there_is_no_room_are_counted() -> None:
    program = dedent("""
        import logging, os, sys
        from stem_iso.worker.reporting.log import configure_logging
        from stem_iso.worker.reporting.log_output import ROOM

        configure_logging("info", "text")
        log = logging.getLogger("any")
        for number in range(40):
            log.info("line %d %s", number, "x" * (ROOM // 30))
        sys.stdin.readline()
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True, bufsize=0
    )
    lines = process.communicate("\n", timeout=60)[1].splitlines()
    assert process.returncode == 0
    dropped = [int(line.split(" lines of the log were dropped")[0].split()[-1]) for line in lines if "were dropped" in line]
    assert len(lines) - len(dropped) + sum(dropped) == 40
    assert lines[0].split()[3:6] == ["any:", "line", "0"]


FLOOD = """
import sys
from pathlib import Path
from stem_iso import Stem

app = Stem("sqlite:///jobs.db")

@app.task(name="flood", isolate=True)
def flood():
    sys.stdout.write("line\\n" * 30_000)

@app.task(name="fails", max_retries=0)
def fails(number):
    raise ValueError(f"failure {number}")

@app.signals.task_failed.connect
def failed(value):
    Path(value.error.message).touch()  # by the thread that gives lines to the log, in line with them

if __name__ == "__main__":
    for _ in range(2):
        flood.enqueue()
    for number in range(6):
        fails.enqueue(number)
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_flood_that_tasks_print_pushes_no_line_of_the_worker_out_of_the_log(tmp_path: Path, form: str) -> None:
    (tmp_path / "shop.py").write_text(FLOOD)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "shop.py"], cwd=tmp_path, env=env, check=True, timeout=60)
    app = Stem(f"sqlite:///{tmp_path}/jobs.db")
    worker = subprocess.Popen(
        [sys.executable, "-m", "stem_iso.worker", "-A", "shop", "-c", "1", "--spares", "0", "--log-format", form],
        cwd=tmp_path,
        env=env,
        stderr=subprocess.PIPE,
    )
    try:
        eventually((tmp_path / "failure 5").exists, "the tasks did not run")
        assert worker.stderr is not None
        seen: list[str] = []
        asked = False
        for line in worker.stderr:  # from here on it is read
            seen.append(line.decode())
            if "were dropped" in seen[-1] and not asked:  # so there is room again, for whatever is logged
                asked = bool(app.enqueue("fails", {"number": 6}))
            elif "failed (error): ValueError: failure 6" in seen[-1]:
                worker.terminate()
            elif "worker stopped" in seen[-1]:
                break
        assert worker.wait(60) == 0
    finally:
        app.close()
        worker.kill()
        worker.communicate()
    assert sum("were dropped: it is written more slowly than it is filled" in line for line in seen), "nothing was dropped"
    assert sum("flood" in line and "completed in" in line for line in seen) == 2
    assert sum("fails" in line and "started (" in line for line in seen) >= 5
    assert [number for number in range(5) if not any(f"failed (error): ValueError: failure {number}" in line for line in seen)] == []


def test_a_line_for_which_there_was_no_thread_is_written_with_the_next() -> None:
    program = dedent("""
        import logging, threading
        from stem_iso.worker.reporting.log import configure_logging

        def refuse(thread):
            raise RuntimeError("can't start new thread")

        configure_logging("info", "text")
        start, threading.Thread.start = threading.Thread.start, refuse
        logging.getLogger("any").info("one")
        threading.Thread.start = start
        logging.getLogger("any").info("two")
    """)
    process = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert process.returncode == 0
    assert [line.split()[-1] for line in process.stderr.splitlines()] == ["one", "two"]
