"""The guide to limits runs as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.snippets import Snippet, snippets

SNIPPETS = snippets("docs/limits.md")


def test_each_snippet_says_something() -> None:
    assert SNIPPETS
    assert [snippet.code for snippet in SNIPPETS if snippet.prints is None] == []


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_a_snippet_of_the_guide_prints_what_it_says(tmp_path: Path, snippet: Snippet) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(snippet.code)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, snippet.prints), done.stderr
