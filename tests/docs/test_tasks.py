"""The page about a task: its tables have every option, with its default, and every name of the context; its programs print what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from stem_iso import TaskContext, TaskOptions
from stem_iso.client.task_defaults import CODE
from stem_iso.task.options import DECLARED_CHECKS, ENQUEUE_CHECKS
from tests.docs.snippets import ROOT, Snippet, snippets

PAGE = "docs/tasks.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
OPTIONS, ENQUEUED, CONTEXT = re.findall(r"^\|---.*\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
NOT_FOR_HANDLERS = {"header", "main", "is_reported", "in_place", "offload", "speaks_for", "publish", "compose", "reported", "finish"}


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]


def test_every_option_stands_in_the_table_with_its_default_and_where_it_may_be_said() -> None:
    shown = {row[0].strip("` "): (row[1].strip("`"), row[-2], row[-1]) for row in rows(OPTIONS)}
    known = {
        field.name: (
            repr(field.default),
            "yes" if field.name in ENQUEUE_CHECKS else "no",
            "no" if field.name in CODE else "yes",
        )
        for field in fields(TaskOptions)
    }
    assert shown == known


def test_every_option_of_an_enqueue_stands_in_its_table() -> None:
    assert {row[0].strip("` ") for row in rows(ENQUEUED)} == ENQUEUE_CHECKS.keys() - DECLARED_CHECKS.keys()


def test_the_context_offers_what_its_table_says_and_nothing_else() -> None:
    shown = {name for row in rows(CONTEXT) for name in re.findall(r"`(\w+)[(`]", row[0])}
    there = {name for name in dir(TaskContext) if not name.startswith("_")}
    there |= {"id", "name", "queue", "run", "attempt", "max_retries", "headers", "args"}  # set at birth
    asynchronous = {name for name in there if name.startswith("a") and name[1:] in there}
    assert asynchronous == set(re.findall(r"`(a\w+)`", TEXT.rpartition("In an `async` handler")[2]))
    assert shown == there - asynchronous - NOT_FOR_HANDLERS


@pytest.mark.parametrize("program", snippets(PAGE), ids=["options", "context"])
def test_a_program_about_a_task_prints_what_it_says(tmp_path: Path, program: Snippet) -> None:
    (tmp_path / "program.py").write_text(program.code)
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == program.prints, done.stderr
