"""The programs of the README run, and print what it says where it says it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.docs.snippets import snippets

FIRST, USE, EMBEDDED, COMPOSED, MEMORY, POOL = snippets("README.md")
SO_FAR = "from stem_iso import TaskContext, Worker\nfrom thumbs import app, make\n\n"  # what a reader has in hand by then


def run(folder: Path, code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=100, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_first_task_runs_by_command_and_in_a_program(tmp_path: Path) -> None:
    assert FIRST.of("thumbs.py")
    (tmp_path / "thumbs.py").write_text(FIRST.code)
    worker = subprocess.Popen([sys.executable, "-m", "stem_iso.worker", "-A", "thumbs:app", "-l", "error"], cwd=tmp_path)
    try:
        assert run(tmp_path, USE.code) == "{'bytes': 4096}\n"
    finally:
        worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert run(tmp_path, SO_FAR + EMBEDDED.code) == "{'bytes': 16384}\n"
    assert run(tmp_path, SO_FAR + MEMORY.code) == ""


def test_several_tasks_print_what_it_says(tmp_path: Path) -> None:
    assert COMPOSED.of("pages.py")
    (tmp_path / "pages.py").write_text(COMPOSED.code)
    done = subprocess.run([sys.executable, "pages.py"], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, COMPOSED.prints), done.stderr
