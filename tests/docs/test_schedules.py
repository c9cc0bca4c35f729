"""The guide to schedules runs as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.snippets import ROOT, codes

SNIPPETS = codes("docs/schedules.md")
PRINTED = ["", "report ['reports.send'] every 604800 s"]


def test_there_are_codes() -> None:
    assert len(SNIPPETS) == len(PRINTED)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_of_the_guide_runs(tmp_path: Path, number: int) -> None:
    (tmp_path / "snippet.py").write_text(SNIPPETS[number])
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"}
    command = [sys.executable, "snippet.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(PRINTED[number])
