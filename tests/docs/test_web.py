"""The programs of the page about web services run as they stand, and print what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.snippets import ROOT, Snippet, snippets

pytestmark = pytest.mark.integrations

STREAM = "entrypoints/webapp/stream.py"
TESTS = "test_service.py"

for framework in ("fastapi", "httpx", "gevent"):
    pytest.importorskip(framework)


PAGE = snippets("docs/web.md")
PROGRAMS = [snippet for snippet in PAGE if not snippet.of(TESTS)]


@pytest.mark.parametrize("snippet", PROGRAMS, ids=["fastapi", "waits", "sse", "gevent"])
def test_a_program_about_web_services_prints_what_it_says(tmp_path: Path, snippet: Snippet) -> None:
    (tmp_path / "snippet.py").write_text(snippet.code)
    done = subprocess.run([sys.executable, "snippet.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (snippet.prints or "")


def test_the_stream_of_the_page_is_that_of_the_example() -> None:
    (program,) = [snippet for snippet in PAGE if snippet.of("progress.py")]
    stream = "async def server_sent_events" + program.code.partition("async def server_sent_events")[2].partition("\n\n\nif ")[0]
    assert stream in (ROOT / STREAM).read_text()


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    for snippet in PAGE:
        if snippet.of("service.py") or snippet.of(TESTS):
            (tmp_path / snippet.code.partition("\n")[0].removeprefix("# ")).write_text(snippet.code)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "."]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout + done.stderr
