"""The session of the page about the command line runs as it stands, and its lines for shells are what shells take."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.snippets import ROOT, snippets

PAGE = "docs/command-line.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """One in which `python` and `stem-iso` are those of the tests."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    for name, command in {"stem-iso": '-c "from stem_iso.cli import main; main()"', "python": ""}.items():
        (scripts / name).write_text(f'#!/bin/sh\nexec {sys.executable} {command} "$@"\n')
        (scripts / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STEM_ISO_")}
    return {**kept, "PATH": f"{scripts}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def test_the_session_prints_what_it_says(tmp_path: Path, environ: dict[str, str]) -> None:
    [jobs] = snippets(PAGE)
    assert jobs.of("jobs.py")
    (tmp_path / "jobs.py").write_text(jobs.code)
    [(session, prints)] = re.findall(r"```sh\n(.*?)```\n\n```text\n(.*?)```", TEXT, re.DOTALL)
    done = subprocess.run(["sh", "-c", session], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, prints), done.stderr
    assert "did you mean 'double'?" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_line_of_a_shell_gives_it_its_completion(tmp_path: Path, environ: dict[str, str], shell: str) -> None:
    assert f"_STEM_ISO_COMPLETE={shell}_source stem-iso" in TEXT
    done = subprocess.run(
        ["stem-iso"], env={**environ, "_STEM_ISO_COMPLETE": f"{shell}_source"}, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and f"_STEM_ISO_COMPLETE={shell}_complete" in done.stdout and "stem-iso" in done.stdout
