"""The page for those who know Celery or RQ: its port runs, and what its tables name on our side exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stem_iso import Stem, TaskHandle
from stem_iso.cli.root import root
from stem_iso.config import SETTINGS
from stem_iso.task.options import DECLARED_CHECKS, ENQUEUE_CHECKS
from tests.docs.snippets import ROOT, snippets

PAGE = "docs/coming-from-celery.md"
BEFORE, AFTER = snippets(PAGE)
OURS = [line.rstrip(" |").split(" | ")[-1] for line in (ROOT / PAGE).read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
CODE = [code for cell in OURS for code in re.findall(r"`([^`]+)`", cell)]


def test_the_port_prints_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "after.py").write_text(AFTER.code)
    done = subprocess.run([sys.executable, "after.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, AFTER.prints), done.stderr


def test_the_commands_of_the_page_exist() -> None:
    named = {tuple(words.split()) for code in CODE for words in re.findall(r"stem-iso ((?:[a-z]+ ?)+)", code)}
    assert ("worker",) in named and len(named) >= 8
    for words in named:
        group = root
        for word in words:
            assert word in group.commands, words
            group = group.commands[word]  # type: ignore[assignment]


def test_the_options_of_the_page_exist() -> None:
    flags = {flag for setting in SETTINGS for flag in setting.flags}
    assert {flag for code in CODE for flag in re.findall(r"--[a-z-]+", code)} - {"--json"} <= flags
    options = DECLARED_CHECKS.keys() | ENQUEUE_CHECKS.keys()
    alone = {code for code in CODE if re.fullmatch(r"[a-z]+(_[a-z]+)+", code)} - {"current_context", "link_error"}
    assert len(alone) >= 6 and alone <= options
    others = {"isolate", "include", "cron", "base", "max", "countdown", "timeout", "terminate", "data", "a"}  # of other calls than `using`
    assert {name for code in CODE for name in re.findall(r"(\w+)=", code)} - others <= options


@pytest.mark.parametrize(("before", "owner"), [("app", Stem("memory://")), ("", TaskHandle)])
def test_what_the_page_calls_exists(before: str, owner: object) -> None:
    named = {name for code in CODE for name in re.findall(rf"^@?{before}\.(\w+)", code)}
    assert len(named) >= 3
    assert [name for name in named if not hasattr(owner, name)] == []
