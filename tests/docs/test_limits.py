"""The guide to limits runs as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.snippets import codes

SNIPPETS = codes("docs/limits.md")
SAID = ["CAT.PNG 500\n", "one after the other\n"]


def test_each_snippet_says_something() -> None:
    assert len(SNIPPETS) == len(SAID)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_of_the_guide_runs(tmp_path: Path, number: int) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(SNIPPETS[number])
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, SAID[number]), done.stderr
