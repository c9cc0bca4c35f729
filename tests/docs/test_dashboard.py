"""The page about the dashboard: its program runs as it stands, and its tables name all that there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.snippets import ROOT, snippets

for extra in ("fastapi", "httpx", "starlette", "jinja2"):
    pytest.importorskip(extra)

PAGE = "docs/dashboard.md"


@pytest.mark.integrations
def test_the_program_of_the_page_prints_what_it_says(tmp_path: Path) -> None:
    (program,) = snippets(PAGE)
    (tmp_path / "service.py").write_text(program.code)
    done = subprocess.run([sys.executable, "service.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == program.prints


def test_the_page_names_every_route() -> None:
    from stem_iso.dashboard.api import ROUTES

    text = (ROOT / PAGE).read_text(encoding="utf-8")
    words = set(re.findall(r"[\w-]+", text))
    for row in ROUTES:
        assert set(re.findall(r"[\w-]+", re.sub(r"\{.*?\}|/api", "", row.path))) <= words, row.path


def test_the_page_names_every_option_of_the_command() -> None:
    from stem_iso.cli.dashboard import dashboard

    text = (ROOT / PAGE).read_text(encoding="utf-8")
    options = [name for parameter in dashboard.params for name in parameter.opts if name not in ("--json", "-A", "--app", "--broker")]
    assert [name for name in options if name not in text] == []
