"""Processes that a script had started before it became a worker by `exec` are the script's: they live on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from stem_iso import TaskFailed
from stem_iso.isolate.keeper import process_tree
from stem_iso.testing import eventually
from tests.command.conftest import Command

Start = Callable[..., Command]

SCRIPT = 'sleep 600 & echo $! >"$0/lives"; sleep 600 & echo $! >"$0/dies"; exec "$@"'


def test_helpers_of_the_script_that_became_a_worker_outlive_tasks_and_worker(command: Start, tmp_path: Path) -> None:
    worker = command(through=("sh", "-c", SCRIPT, str(tmp_path))).ready()
    lives, dies = (int((tmp_path / name).read_text()) for name in ("lives", "dies"))
    try:
        crash = worker.enqueue("leave", args={"code": 3})
        with pytest.raises(TaskFailed):
            crash.result(timeout=30)
        assert not process_tree.is_dead(lives)
        os.kill(dies, signal.SIGKILL)
        eventually(lambda: dies not in process_tree.children(worker.process.pid))  # no zombie of it is left
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
        assert not process_tree.is_dead(lives)
    finally:
        for pid in (lives, dies):
            if not process_tree.is_dead(pid):
                os.kill(pid, signal.SIGKILL)
