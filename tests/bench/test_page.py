"""The report: what a reader must know before a table stands before it, and its page needs nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.bench.test_judgement import BUSY, QUIET, sample

pytest.importorskip("matplotlib")

from bench.reference import page
from bench.reference.samples import read

RUN = {"kind": "run", "at": "today", "cores": 2, "cpu": "x", "kernel": "6", "python": "3", "commit": "c", "limit": 0.4, "versions": {}}
SIGNAL = {"at": 0.001, "signal": 9, "to": "handler"}
LINES = [RUN, QUIET, sample(events=[SIGNAL]), sample("pebble", dead=0.0001, events=[]), sample("mpire", dead=None, left_1=1)]


def test_a_report_is_a_page_with_its_pictures_and_its_samples(tmp_path: Path) -> None:
    written = page.write(LINES, tmp_path / "report")
    text = written.read_text()
    assert "<script" not in text
    sources = re.findall(r"(?:src|srcset)=(\S+?)[ >]", text)
    assert sources and all((written.parent / source).stat().st_size > 1000 for source in sources)
    assert list(read([written.parent / "samples.jsonl"])) == LINES


def test_the_lead_of_another_system_stands_before_every_table(tmp_path: Path) -> None:
    text = page.html(LINES, ["left_behind"])
    assert 0 < text.index("with pebble") < text.index("<table")
    assert "still runs" in text


def test_a_busy_machine_stands_before_every_table() -> None:
    text = page.html([RUN, BUSY, sample()], ["left_behind"])
    assert 0 < text.index("too busy") < text.index("<table")
    assert "too busy" not in page.html([RUN, QUIET, sample()], ["left_behind"])


def test_a_broken_promise_of_ours_stands_before_every_table() -> None:
    text = page.html([RUN, QUIET, sample(left_1=2)], ["left_behind"])
    assert 0 < text.index("promises were broken") < text.index("<table")
