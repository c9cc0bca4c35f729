"""What the commands show of bad data: what can be read of it, else one line that says what and where, and never our traceback."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stem_iso import Stem
from stem_iso.brokers.operations import Action, TaskCounts
from stem_iso.brokers.url import open_broker
from stem_iso.cli import main
from stem_iso.errors import StemError
from stem_iso.outcome import TaskError, TaskState
from stem_iso.task.settlement import Finish
from stem_iso.testing.contract.canvas_steps import chain, compose, leaf
from stem_iso.testing.contract.schedules import schedule
from stem_iso.testing.contract.steps import envelope, settle, take_one
from stem_iso.testing.contract.workers import info

DEEP = b"\x91" * 100_000 + b"\xc0"
BAD = {
    "no UTF-8": "CAST(x'ff41' AS TEXT)",
    "a text": "'no number'",
    "cut msgpack": "x'82a161'",
    "deep": f"x'{DEEP.hex()}'",
    "large": "9e300",
    "the end of the calendar": "253402300799",
}
COMMANDS = {
    "task": [["status", "waits"], ["status", "done"], ["result", "died"], ["graph", "canvas"], ["queues"], ["tasks"], ["health"]],
    "dead": [["dlq", "list"], ["dlq", "show", "died"], ["dlq", "replay", "--all", "--dry-run"]],
    "worker": [["workers"], ["queues"]],
    "schedule": [["schedule", "list"]],
    "counts": [["stats"], ["stats", "thumbs.make"], ["queues"]],
    "action": [["actions"]],
}
TABLES = {
    "task": ["name", "queue", "at", "run", "error", "progress", "meta", "result", "enqueued", "started", "finished", "reason", "tree"],
    "dead": ["name", "queue", "reason", "run", "died", "error", "body"],
    "worker": ["seen", "info"],
    "schedule": ["body", "due", "owner", "fired", "revision"],
    "counts": ["enqueued", "body"],
    "action": ["body"],
}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.db"


def furnish(url: str) -> None:
    broker = open_broker(url)
    compose(broker, chain(leaf("first"), leaf("canvas")))
    error = TaskError(type="builtins.ValueError", message="no")
    for id, plan in (
        ("done", Finish(TaskState.SUCCEEDED, result=b"\x2a")),
        ("died", Finish(TaskState.FAILED, "not-retryable", error=error)),
    ):
        broker.publish([envelope(id=id, priority=9)])
        settle(broker, take_one(broker), plan, meta={"a": 1})
    broker.publish([envelope(id="waits", meta={"b": 2})])
    broker.put_schedule(schedule())
    broker.add_counts([TaskCounts(queue="default", name="thumbs.make", minute=int(time.time() // 60), counts={"failed": 1})])
    broker.log_action(Action(at=1.0, by="ann@desk", action="retry"))
    broker.beat(info())
    broker.close()


def stem(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["stem-iso", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize("value", BAD)
def test_a_damaged_value_is_shown_around_or_reported_in_one_line(
    url: str, tmp_path: Path, value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    furnish(url)
    raw = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    for table, columns in TABLES.items():
        for column in columns:
            key = "rowid" if table in ("task", "dead", "action") else {"worker": "id", "schedule": "name", "counts": "minute"}[table]
            before = raw.execute(f"SELECT {key}, {column} FROM {table}").fetchall()
            raw.execute(f"UPDATE {table} SET {column} = {BAD[value]} WHERE {column} IS NOT NULL")
            for command in COMMANDS[table]:
                for form in ([], ["--json"]):
                    code, out, err = stem(
                        capsys, monkeypatch, *command, "--broker", url, *form, *(["--timeout", "0"] * (command[0] == "result"))
                    )
                    assert code in (0, 1), (table, column, command, err)
                    assert code == 1 or not form or json.loads(out) is not None
                    assert len(err.splitlines()) <= (1 if code == 0 or form else 30), (table, column, command, err)
            raw.executemany(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", [(old, row) for row, old in before])
    raw.close()


def test_a_result_that_nobody_can_read_is_reported_by_the_handle(url: str) -> None:
    app = Stem(url)
    for result in (DEEP, b"\xc1", b"\xa1\xff"):
        handle = app.enqueue("deep")
        broker = app.open_broker()
        settle(broker, take_one(broker), Finish(TaskState.SUCCEEDED, result=result))
        broker.close()
        for read in (handle.status, lambda handle=handle: handle.result(0)):
            with pytest.raises(StemError, match=f"result of task deep .{handle.id}. cannot be read"):
                read()
    app.close()


def of_another(path: Path) -> None:
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE theirs (a)")
    raw.close()


def ours(pragma: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        furnish(f"sqlite:///{path}")
        raw = sqlite3.connect(path)
        raw.execute(pragma)
        raw.close()

    return make


PLACES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a folder": (Path.mkdir, "is a folder"),
    "a text": (lambda path: path.write_text("some words, many of them, none of a database\n" * 50), "file is not a database"),
    "another program's": (of_another, "database of another program"),
    "a schema of the future": (ours("PRAGMA user_version = 99"), "written by a newer stem_iso"),
    "no schema": (ours("PRAGMA user_version = -1"), "damaged"),
    "a fifo": (os.mkfifo, "is no plain file"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_place_that_holds_no_queue_ends_with_3(
    tmp_path: Path, place: str, form: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, message = PLACES[place]
    make(tmp_path / "jobs.db")
    for command in (["queues"], ["status", "any"], ["result", "any"], ["dlq", "list"], ["workers"], ["schedule", "list"]):
        code, out, err = stem(capsys, monkeypatch, *command, "--broker", f"sqlite:///{tmp_path}/jobs.db", *form)
        said, silent = (out, err) if form else (err, out)
        assert (code, silent) == (3, ""), said
        assert message in said and "jobs.db" in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("path", ["a%00b.db", "a\0b.db"])
def test_a_nul_in_the_path_ends_with_2(path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"])
    code, _, err = stem(capsys, monkeypatch, "queues", "--broker", f"sqlite:///{path}")
    assert code == 2 and "no NUL" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("command", [["status"], ["result"], ["revoke"], ["dlq", "show"], ["queues", "purge"], ["schedule", "pause"]])
def test_an_argument_that_is_no_text_ends_with_2(
    url: str, command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = stem(capsys, monkeypatch, *command, "caf\udce9", "--broker", url)
    assert code == 2 and "no UTF-8" in err


def test_events_pass_over_what_is_none(url: str) -> None:
    app = Stem(url)
    events = app.events(timeout=1)
    broker = app.open_broker()
    broker.emit([b"\xc1", DEEP, msgspec.msgpack.encode({"type": "unknown"})])
    assert list(events) == []
    broker.close(), app.close()
