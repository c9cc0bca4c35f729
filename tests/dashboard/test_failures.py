"""Failed tasks in groups: by what went wrong, and where."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from stem_iso import TaskError, TaskState, TaskStatus
from stem_iso.dashboard.failures import NEWEST, grouped, place_of

TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/tasks.py", line 7, in make
    decode(path)
  File "/srv/shop/pictures.py", line 12, in decode
    raise ValueError(path)
ValueError: bad.png
"""
FAULT = """Current thread 0x1 (most recent call first):
  File "/srv/shop/native.py", line 3 in call
  File "/srv/shop/tasks.py", line 9 in make
"""
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def failed(id: str, error: TaskError | None, minute: int = 0, name: str = "thumbs.make", reason: str = "failed") -> TaskStatus:
    finished = NOON + timedelta(minutes=minute)
    return TaskStatus(id=id, name=name, queue="images", state=TaskState.FAILED, reason=reason, error=error, finished_at=finished)


def test_the_place_is_the_innermost_frame() -> None:
    assert place_of(TaskError(type="ValueError", traceback=TRACEBACK)) == "/srv/shop/pictures.py:12 in decode"


def test_the_place_of_a_crash_is_where_its_fault_stack_begins() -> None:
    assert place_of(TaskError(type="IsolateCrashed", stack=FAULT)) == "/srv/shop/native.py:3 in call"


def test_the_place_of_a_time_out_is_where_the_handler_was_stuck() -> None:
    stack = '  File "/srv/shop/tasks.py", line 30, in make\n    wait()\n  File "/srv/shop/net.py", line 4, in wait\n    read()\n'
    assert place_of(TaskError(type="TimeoutException", stack=stack)) == "/srv/shop/net.py:4 in wait"


def test_the_place_is_in_the_code_of_the_application_where_that_called_a_library() -> None:
    match = '  File "/usr/lib/python3.11/re/__init__.py", line 171, in match\n'
    scan, look = '  File "/srv/shop/scan.py", line 3, in scan\n', '  File "/srv/shop/scan.py", line 5 in look\n'
    assert place_of(TaskError(type="TimeoutException", stack=scan + match)) == "/srv/shop/scan.py:3 in scan"
    fault = f"Thread 0x1 (most recent call first):\n{match}{look}{scan}"
    assert place_of(TaskError(type="IsolateCrashed", stack=fault)) == "/srv/shop/scan.py:5 in look"
    assert place_of(TaskError(type="TimeoutException", stack=match)) == "/usr/lib/python3.11/re/__init__.py:171 in match"


def test_an_error_without_a_trace_has_no_place() -> None:
    assert place_of(TaskError(type="ValueError", message='File "x", line')) == ""


def test_the_same_error_at_two_places_makes_two_groups_and_the_larger_one_is_first() -> None:
    here, there = TaskError(type="ValueError", message="new", traceback=TRACEBACK), TaskError(type="ValueError", stack=FAULT)
    groups = grouped([failed("3", here, 9), failed("2", there, 5), failed("1", here, 1, name="thumbs.crop")])
    assert [(group["count"], group["place"], group["newest"]) for group in groups] == [
        (2, "/srv/shop/pictures.py:12 in decode", ["3", "1"]),
        (1, "/srv/shop/native.py:3 in call", ["2"]),
    ]
    assert groups[0]["names"] == {"thumbs.make": 1, "thumbs.crop": 1} and groups[0]["message"] == "new"
    assert (groups[0]["first_at"], groups[0]["last_at"]) == ("2026-01-31T12:01:00Z", "2026-01-31T12:09:00Z")


def test_a_failure_without_an_error_is_grouped_by_its_reason() -> None:
    assert [(group["type"], group["count"]) for group in grouped([failed("1", None, reason="worker-lost")])] == [("worker-lost", 1)]


def test_a_large_group_names_its_newest_tasks_alone() -> None:
    (group,) = grouped([failed(str(n), None) for n in range(100)])
    assert group["count"] == 100 and group["newest"] == [str(n) for n in range(NEWEST)]


@pytest.mark.parametrize("unit", ["\n", " ", "\t\n", '  File "', '\n  File "a'])
def test_the_place_is_sought_in_a_time_that_grows_with_the_text_alone(unit: str) -> None:
    """A message may be thousands of empty lines, and all failed tasks are read at once. A search that is quadratic takes minutes here."""
    text = unit * (2_000_000 // len(unit))
    assert place_of(TaskError(type="ValueError", traceback=text + TRACEBACK)) == "/srv/shop/pictures.py:12 in decode"
