"""The programs of the page about logging: the application logs what the page shows, and the other prints what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.docs.snippets import ROOT, snippets

APPLICATION, PROGRAM = snippets("docs/logging.md")


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def test_the_application_logs_what_the_page_shows(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APPLICATION.code)
    assert run(tmp_path, "-c", "import shop; shop.pay.enqueue(7); shop.remind.enqueue(7)").returncode == 0
    done = run(tmp_path, "-m", "stem_iso.worker", "-A", "shop", "--burst", "-c", "1", "--spares", "0")
    assert done.returncode == 0, done.stderr
    shown = [re.sub(r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b", "0199…", line[24:]) for line in done.stderr.splitlines()]
    page = re.search(r"```\n(2026-.*?)```", (ROOT / "docs/logging.md").read_text(encoding="utf-8"), re.DOTALL)
    assert page is not None
    for line in page[1].splitlines():
        text = re.sub(r"in 0\.\d+ s$", "in", line[24:])
        assert len([each for each in shown if re.sub(r"in \d+\.\d+ s$", "in", each) == text]) == 1, line
    written = (tmp_path / "shop.log").read_text()
    assert written.count("INFO shop.payments paid\n") == written.count("WARNING shop.remind no address\n") == 1


def test_the_program_prints_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "snippet.py").write_text(PROGRAM.code)
    done = run(tmp_path, "snippet.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout == PROGRAM.prints
