"""The guide to `IsolatePool` runs as it stands, and so does what the README says of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.snippets import codes

SNIPPETS = [*(each for each in codes("README.md") if "IsolatePool" in each), *codes("docs/pool.md")]


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) == 3


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_of_the_guide_runs(tmp_path: Path, number: int) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(SNIPPETS[number])
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    if number < 2:
        assert done.stdout == "hard time limit of 1 s reached in fullmatch\n"
