"""The programs of the page about retries run as they stand, and print what it says; its table of delays is that of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stem_iso import ExponentialJitterRetryStrategy, TaskError
from tests.docs.snippets import ROOT, Snippet, snippets

PAGE = "docs/retries.md"
PROGRAMS = snippets(PAGE)


@pytest.mark.parametrize("program", PROGRAMS, ids=["kinds", "strategy", "asked", "killed", "history", "by-hand"])
def test_a_program_about_retries_prints_what_it_says(tmp_path: Path, program: Snippet) -> None:
    (tmp_path / "program.py").write_text(program.code)
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == program.prints, done.stderr


def test_the_pauses_in_the_table_are_those_of_the_default_strategy() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    row = re.search(r"^\| pause, seconds \|(.*)\|$", text, re.MULTILINE)
    assert row is not None
    error = TaskError(type="ValueError", message="")
    least, most = ExponentialJitterRetryStrategy(dice=lambda: 0.0), ExponentialJitterRetryStrategy(dice=lambda: 1.0)
    shown = [cell.strip() for cell in row[1].split("|")]
    assert shown == [f"{least.next_delay(n, error):g}–{most.next_delay(n, error):g}" for n in range(len(shown))]
    assert least.next_delay(len(shown), error) == least.next_delay(len(shown) - 1, error), "from the last column on it does not change"
