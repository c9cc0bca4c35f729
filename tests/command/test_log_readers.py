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

from stem_iso import TaskState
from tests.command.conftest import ROOT, Command
from tests.command.test_stopping import started

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
