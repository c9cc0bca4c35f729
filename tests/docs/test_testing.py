"""The tests that the page about tests shows run as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.docs.snippets import snippets


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    for snippet in snippets("docs/testing.md"):
        name = snippet.code.partition("\n")[0].removeprefix("# ")
        (tmp_path / name).write_text(snippet.code)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "."], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "7 passed" in done.stdout, done.stdout + done.stderr
