"""The programs of the page about applications run as they stand, and print what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stem_iso import TaskOptions
from stem_iso.client.task_defaults import task_defaults
from stem_iso.config import broker_url, load
from tests.docs.snippets import ROOT, Snippet, snippets


@pytest.mark.parametrize("snippet", snippets("docs/applications.md"), ids=["defaults", "files", "types", "one-task"])
def test_a_program_about_applications_prints_what_it_says(tmp_path: Path, snippet: Snippet) -> None:
    (tmp_path / "snippet.py").write_text(snippet.code)
    done = subprocess.run([sys.executable, "snippet.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == snippet.prints


def test_the_file_of_the_page_is_read_with_every_key_it_has(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/applications.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "pyproject.toml").write_text(text)
    config = load({}, {}, tmp_path)
    assert (config.queues, config.shutdown_timeout, config.include) == (("default", "images"), 60.0, ("shop.reports",))
    assert broker_url({}, tmp_path) == "sqlite:///jobs.db"
    assert task_defaults(TaskOptions(hard_time_limit=5, priority=1), {}, tmp_path).hard_time_limit == 300.0
    assert task_defaults(None, {"STEM_ISO_DEFAULT_HARD_TIME_LIMIT": "120"}, tmp_path).hard_time_limit == 120.0
