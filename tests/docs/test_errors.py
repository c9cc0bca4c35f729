"""The programs of the page about errors and traces run as they stand, and print what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.snippets import Snippet, snippets

pytest.importorskip("sentry_sdk")
pytest.importorskip("opentelemetry.sdk")


@pytest.mark.parametrize("snippet", snippets("docs/errors.md"), ids=["sentry", "otel"])
def test_a_program_about_errors_prints_what_it_says(tmp_path: Path, snippet: Snippet) -> None:
    (tmp_path / "program.py").write_text(snippet.code)
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == snippet.prints, done.stderr
