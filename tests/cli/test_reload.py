"""A worker that starts anew when its code changes."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Folder
from tests.isolate.calling import descendants, eventually

CODE = 'from stem_iso import Stem\napp = Stem()\n@app.task(name="say", isolate=True)\ndef say() -> str:\n    return "{}"\n'


@pytest.fixture
def reloading(folder: Folder) -> Iterator[subprocess.Popen[str]]:
    folder.write("words.py", CODE.format("first"))
    with (folder.path / "log").open("w") as log:
        process = folder.start("-m", "stem_iso.worker", "-A", "words", "-c", "1", "--reload", stdout=log, stderr=log)
    yield process
    process.kill()
    process.wait()


def said(folder: Folder) -> str:
    done = folder.stem("enqueue", "say", "--wait")
    assert done.returncode == 0, done
    return done.stdout


def log(folder: Folder) -> str:
    return (folder.path / "log").read_text()


def test_changed_code_runs_and_a_slip_is_waited_out(folder: Folder, reloading: subprocess.Popen[str]) -> None:
    assert "first" in said(folder)
    folder.write("words.py", CODE.format("second"))
    eventually(lambda: log(folder).count("serves 1 task of words:app") == 2, "no worker with the change has begun")
    assert "changed: words.py" in log(folder)
    assert "second" in said(folder)
    folder.write("words.py", "def f(:\n")
    eventually(lambda: "the worker has ended (2)" in log(folder), "the slip was not met")
    assert "SyntaxError" in log(folder)
    folder.write("words.py", CODE.format("third"))
    assert "third" in said(folder)
    below = descendants(reloading.pid)
    reloading.send_signal(signal.SIGTERM)
    assert reloading.wait(40) == 0 and below
    eventually(lambda: not descendants(reloading.pid), "something is left")


def test_without_watchfiles_it_says_what_to_install(folder: Folder) -> None:
    hidden = "import sys; sys.modules['watchfiles'] = None; from stem_iso.cli import main; main()"
    done = folder.run("-c", hidden, "worker", "-A", "jobs", "--reload")
    assert done.returncode == 2 and "pip install 'stem_iso[reload]'" in done.stderr
