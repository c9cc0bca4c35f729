"""The guide runs as it stands, with a worker by command, and prints what it says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.snippets import Snippet, snippets

GUIDE = snippets("docs/guide.md")
FILE = "pictures.py"
PROGRAMS = [snippet for snippet in GUIDE if not snippet.of(FILE)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("guide")
    (folder / FILE).write_text("\n\n".join(snippet.code for snippet in GUIDE if snippet.of(FILE)))
    worker = subprocess.Popen([sys.executable, "-m", "stem_iso.worker", "-A", "pictures", "-c", "2", "-l", "error"], cwd=folder)
    yield folder
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


def test_the_guide_has_programs_and_says_what_each_prints() -> None:
    assert len(PROGRAMS) == 7
    assert all(snippet.prints for snippet in PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program_of_the_guide_prints_what_it_says(folder: Path, program: Snippet) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program.code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == program.prints


@pytest.mark.parametrize("snippet", snippets("docs/signals.md"), ids=["signals", "middleware"])
def test_a_program_about_signals_and_middleware_prints_what_it_says(tmp_path: Path, snippet: Snippet) -> None:
    (tmp_path / "snippet.py").write_text(snippet.code)
    done = subprocess.run([sys.executable, "snippet.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == snippet.prints
