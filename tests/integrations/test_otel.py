"""The spans of real workers: the real SDK, with an exporter that writes to a file."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tests.integrations.conftest import TASKS, Ran

pytestmark = pytest.mark.integrations  # as in test_sentry.py

TRACE, PUBLISH = "0x" + "a" * 32, "0x" + "b" * 16  # of PARENT


def own(span: dict[str, Any]) -> tuple[str, str]:
    return span["context"]["trace_id"], span["context"]["span_id"]


def test_each_attempt_is_one_span_below_the_publish_whose_traceparent_travelled(ran: Ran) -> None:
    expected = {"isolated.error": 3, "inline.error": 2, "isolated.stuck": 2, "isolated.mixed": 2, "isolated.asked": 2}
    for name in TASKS:
        spans = ran.attempts_of(name)
        assert [span["attributes"]["stem_iso.attempt"] for span in spans] == list(range(expected.get(name, 1))), name
        assert {(span["context"]["trace_id"], span["parent_id"]) for span in spans} == {(TRACE, PUBLISH)}, name


@pytest.mark.parametrize("name", ["isolated.error", "isolated.stuck", "isolated.mixed", "inline.error"])
def test_an_attempt_links_to_the_one_before_it_however_that_one_ended(ran: Ran, name: str) -> None:
    spans = ran.attempts_of(name)
    assert len(spans) > 1 and spans[0]["links"] == []
    for before, after in pairwise(spans):
        assert [(link["context"]["trace_id"], link["context"]["span_id"]) for link in after["links"]] == [own(before)]


@pytest.mark.parametrize(
    ("name", "error"),
    [("isolated.stuck", "TimeoutException"), ("isolated.segfault", "IsolateCrashed"), ("isolated.hog", "MemoryLimitExceeded")],
)
def test_the_span_of_a_process_that_was_killed_is_ended_by_the_core(ran: Ran, name: str, error: str) -> None:
    span = ran.attempts_of(name)[-1]
    assert span["pid"] == ran.core
    assert span["status"]["status_code"] == "ERROR"
    assert span["status"]["description"].startswith(f"{error}: ")
    assert [event["attributes"]["exception.type"] for event in span["events"]] == [f"stem_iso.errors.{error}"]
    assert span["start_time"] < span["end_time"]


def test_what_the_handler_had_ended_before_it_was_killed_is_below_the_span_of_the_core(ran: Ran) -> None:
    parts = [span for span in ran.spans if span["name"] == "inline part"]
    assert sorted(part["parent_id"] for part in parts) == sorted(own(span)[1] for span in ran.attempts_of("isolated.stuck"))


def test_an_error_is_on_the_span_of_its_attempt(ran: Ran) -> None:
    span = ran.attempts_of("isolated.error")[-1]
    assert span["pid"] != ran.core
    assert span["status"] == {"status_code": "ERROR", "description": "ValueError: no discount of 42 in attempt 2"}
    assert [event["attributes"]["exception.type"] for event in span["events"]] == ["ValueError"]


def test_what_a_handler_enqueues_is_published_below_its_attempt(ran: Ran) -> None:
    (attempt,) = ran.attempts_of("isolated.fine")
    (publish,) = [span for span in ran.spans if span["name"] == "publish isolated.child"]
    (child,) = ran.attempts_of("isolated.child")
    assert attempt["parent_id"] is None  # its producer has no OpenTelemetry
    assert (publish["context"]["trace_id"], publish["parent_id"]) == own(attempt)
    assert (child["context"]["trace_id"], child["parent_id"]) == own(publish)
    assert [span["status"]["status_code"] for span in (attempt, publish, child)] == ["UNSET"] * 3
