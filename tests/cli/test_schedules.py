"""Schedules as an operator handles them from a shell."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.cli.conftest import Folder

PLAN = """
from jobs import add, app

if __name__ == "__main__":
    app.schedule("nightly", add.s(1, b=2), cron="0 3 * * *", timezone="Asia/Tokyo", jitter=60)
    app.schedule("often", add.s(1), every=86400)
"""


@pytest.fixture
def planned(folder: Folder) -> Folder:
    folder.write("plan.py", PLAN)
    assert folder.stem("schedule", "list").stdout == "no schedules\n"
    done = folder.run("plan.py")
    assert done.returncode == 0, done
    return folder


@pytest.mark.slow
def test_list_shows_what_is_scheduled(planned: Folder) -> None:
    nightly, often = planned.json("schedule", "list")
    due = datetime.fromisoformat(nightly.pop("next_due"))
    assert nightly == {
        "name": "nightly", "tasks": ["add"], "when": "0 3 * * * Asia/Tokyo", "cron": "0 3 * * *", "timezone": "Asia/Tokyo", "every": None,
        "jitter": 60.0, "catch_up": "latest", "last_fired": None, "paused": False, "late": 0.0, "owner": "", "outcomes": [],
    }  # fmt: skip
    assert (due.hour, due.minute) == (18, 0)  # 03:00 in Tokyo, with less than a minute of jitter
    assert (often["when"], often["every"], often["timezone"]) == ("every 86400 s", 86400.0, None)
    head, first, second = planned.stem("schedule", "list").stdout.splitlines()
    assert head.split() == ["SCHEDULE", "TASK", "WHEN", "NEXT", "LAST", "STATE"]
    assert "0 3 * * * Asia/Tokyo, jitter 60 s" in first and first.endswith("active")
    assert f"{due.astimezone():%Y-%m-%d %H:%M:%S %Z}" in first
    assert second.startswith("often")


@pytest.mark.slow
def test_pause_resume_trigger_remove(planned: Folder) -> None:
    paused = planned.json("schedule", "pause", "nightly")
    assert (paused["paused"], paused["next_due"]) == (True, None)
    assert planned.stem("schedule", "list").stdout.splitlines()[1].endswith("paused")
    id = planned.stem("schedule", "trigger", "nightly").stdout.strip()
    assert planned.json("status", id)["state"] == "queued"
    assert planned.worker().returncode == 0
    assert planned.json("result", id)["result"] == 3
    assert planned.stem("schedule", "resume", "nightly").stdout.startswith("resumed; next at 20")
    assert planned.json("schedule", "remove", "nightly") == {"name": "nightly", "removed": True}
    assert [each["name"] for each in planned.json("schedule", "list")] == ["often"]


@pytest.mark.parametrize("command", ["pause", "resume", "trigger", "remove"])
def test_an_unknown_name_ends_with_1_and_says_which_was_meant(planned: Folder, command: str) -> None:
    done = planned.stem("schedule", command, "nihgtly")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: no schedule 'nihgtly' is in the broker; did you mean 'nightly'?\n"
