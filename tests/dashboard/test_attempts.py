"""The page of one task, and its JSON: all attempts against their limits, and what the last one printed."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import httpx
import msgspec

from stem_iso import Stem
from stem_iso.dashboard.drawings import attempt_rows, timeline
from stem_iso.outcome import EndedAttempt, TaskError, TaskState
from stem_iso.task.attempt_history import ended_attempt
from stem_iso.task.settlement import Finish
from stem_iso.testing.contract.steps import envelope, next_attempt, settle, take_one

TIMED_OUT = TaskError(type="stem_iso.errors.TimeoutException", message="hard time limit of 60 s reached <b>\x1b[2J")
FAILED = TaskError(type="ValueError", message="no", output="reading <i>rows</i>\nWARNING shop: slow \x1b[31m")


def tried_twice(app: Stem) -> str:
    """A task of which one attempt was killed, and the next one failed."""
    first = envelope(name="thumbs.wait", queue="waiting", enqueued_at=1000.0)
    before = ended_attempt(first, TIMED_OUT, "timeout", started_at=1010.0, finished_at=1070.5, worker_id="w1")
    before = msgspec.structs.replace(before, soft_time_limit=50.0, hard_time_limit=60.0, killed=True)
    with app.broker_pool.borrow() as broker:
        broker.publish([first])
        settle(broker, take_one(broker, queues=["waiting"]), next_attempt(first, attempts=(before,)))
        settle(broker, take_one(broker, queues=["waiting"]), Finish(TaskState.FAILED, "max-retries-exhausted", error=FAILED))
    return first.id


def test_the_page_shows_each_attempt_against_its_limits(app: Stem, site: httpx.Client) -> None:
    page = site.get(f"/tasks/{tried_twice(app)}").text
    rows = re.findall(r"<li.*?</li>", page.partition('class="attempts"')[2].partition("</ol>")[0], re.DOTALL)
    assert len(rows) == 2
    rows.reverse()  # the newest comes first
    assert all(word in rows[0] for word in ("First attempt", "retried", "timeout", "killed", "TimeoutException", 'aria-valuemax="60.0"'))
    assert 'aria-valuetext="1 m, soft limit 50 s, hard limit 1 m"' in rows[0] and 'data-tone="over"' in rows[0]
    assert all(word in rows[1] for word in ("Retry 1", "failed", "max-retries-exhausted", "ValueError: no"))


def test_what_was_printed_is_shown_and_is_neither_markup_nor_control(app: Stem, site: httpx.Client) -> None:
    id = tried_twice(app)
    page = site.get(f"/tasks/{id}").text
    assert "reading &lt;i&gt;rows&lt;/i&gt;\nWARNING shop: slow \\x1b[31m" in page
    assert "reached &lt;b&gt;\\x1b[2J" in page and "\x1b" not in page
    shown = site.get(f"/api/tasks/{id}").json()
    assert shown["error"]["output"] == FAILED.output
    (before,) = shown["attempts"]
    assert (before["attempt"], before["reason"], before["killed"], before["hard_time_limit"]) == (0, "timeout", True, 60)
    assert before["started_at"] == "1970-01-01T00:16:50Z" and before["error_message"] == TIMED_OUT.message


def test_a_task_that_was_tried_once_has_no_list_of_attempts(app: Stem, site: httpx.Client) -> None:
    id = app.enqueue("thumbs.make", {"path": "a.png"}).id
    assert 'class="attempts"' not in site.get(f"/tasks/{id}").text
    assert site.get(f"/api/tasks/{id}").json()["attempts"] == []


def view(state: str, started_at: str | None, finished_at: str | None, elapsed: float | None) -> dict[str, object]:
    before = EndedAttempt(run=0, attempt=0, started_at=at(10), finished_at=at(20), soft_time_limit=4.0, hard_time_limit=9.0)
    return {
        "attempts": [msgspec.to_builtins(before)], "state": state, "reason": None, "run": 0, "attempt": 1, "error": None,
        "enqueued_at": "1970-01-01T00:00:00Z", "not_before": None, "limits": None,
        "started_at": started_at, "finished_at": finished_at, "elapsed": elapsed,
    }  # fmt: skip


def at(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def test_a_timeline_has_the_waits_the_attempts_and_their_limits_in_order() -> None:
    over = timeline(view("failed", "1970-01-01T00:00:35Z", "1970-01-01T00:00:40Z", 5.0), 99.0)
    assert over is not None
    assert [(step.kind, round(step.left, 1), round(step.width, 1)) for step in over.steps] == [
        ("waited", 0, 25), ("retried", 25, 25), ("waited", 50, 37.5), ("failed", 87.5, 12.5),
    ]  # fmt: skip
    assert [(kind, round(place, 1)) for kind, place in over.marks] == [("soft", 35), ("hard", 47.5)]
    assert over.waited == 25


def test_one_that_waits_for_its_next_attempt_ends_now_and_has_no_newest() -> None:
    waiting = view("retried", "1970-01-01T00:00:10Z", None, None)
    drawn = timeline(waiting, 40.0)
    assert drawn is not None and [step.kind for step in drawn.steps] == ["waited", "retried", "waited"]
    assert drawn.steps[-1].left + drawn.steps[-1].width == 100
    assert [row.newest for row in attempt_rows(waiting)] == [False]
