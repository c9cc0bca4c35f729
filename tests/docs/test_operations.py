"""The page about operations runs as it stands, one program after the other in one folder, and prints what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.snippets import ROOT, snippets
from tests.docs.test_command_line import environ as environ

PAGE = "docs/operations.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_prints_what_it_says(tmp_path: Path, environ: dict[str, str]) -> None:
    shop, *programs = snippets(PAGE)
    assert shop.of("shop.py") and len(programs) == 3
    (tmp_path / "shop.py").write_text(shop.code)
    for program in programs:
        (tmp_path / "program.py").write_text(program.code)
        command = [sys.executable, "program.py"]
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=100)
        assert (done.returncode, done.stdout) == (0, program.prints), done.stderr
    [(session, prints)] = re.findall(r"```sh\n(.*?)```\n\n```text\n(.*?)```", TEXT, re.DOTALL)
    done = subprocess.run(["sh", "-c", session], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=100)
    assert (done.returncode, re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", done.stdout)) == (0, prints), done.stderr
