"""What tasks are chosen by, as people give it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_iso import InvalidOptions, Stem
from stem_iso.client.task_filter import checked, in_words
from stem_iso.task.codec import pack

NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("state", "faild", "state: 'faild' is none; did you mean 'failed'?"),
        ("state", ["failed", 3], "state: 3 is none; known are queued,"),
        ("state", 7, "state: 7 is none"),
        ("state", [], "state: of no states"),
        ("queue", "", "queue: '' must be"),
        ("name", 3, "name: 3 must be"),
        ("text", "", "text: '' must be"),
        ("since", datetime(2026, 1, 31), "since: .* has no zone"),
        ("until", 3.0, "until: 3.0 must be a datetime with a zone"),
        ("since", timedelta(minutes=-1), "since: .* must be at least 0"),
        ("colour", "red", "colour: tasks are not chosen by that"),
        ("states", "failed", "states: .*did you mean 'state'?"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_field(field: str, value: Any, says: str) -> None:
    with pytest.raises(InvalidOptions, match=says):
        checked({field: value}, NOW)


def test_times_are_moments_or_so_long_ago() -> None:
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert checked({"until": at}, NOW).stored.until == at.timestamp()
    assert checked({"since": timedelta(minutes=10)}, NOW).stored.since == NOW - 600
    with pytest.raises(InvalidOptions, match="since: it is later than until"):
        checked({"since": timedelta(minutes=5), "until": timedelta(minutes=10)}, NOW)


def test_a_filter_of_nothing_chooses_nothing() -> None:
    assert not checked({}, NOW).chooses
    assert not checked({"state": None, "text": None}, NOW).chooses
    assert checked({"text": "x"}, NOW).chooses and checked({"state": "failed"}, NOW).chooses


def test_a_filter_is_named_in_words() -> None:
    given = {"state": ["running", "failed"], "name": "a.*", "since": timedelta(minutes=10), "queue": None}
    assert in_words(given) == "state=failed,running name=a.* since=600s"
    assert in_words({}) == "all"


app = Stem("memory://")


@app.task(name="send", redact=("token",))
def send(to: str, token: str = "", **more: Any) -> None: ...


def shown(**args: Any) -> dict[str, Any] | None:
    return app.shown_arguments("send", pack(args))


@pytest.mark.parametrize("text", ["ann@example", "ANN@", "to=ann", 'to="ann@example.com"', '"size":3', "more="])
def test_a_text_is_found_where_people_see_it(text: str) -> None:
    assert checked({"text": text}, NOW).matches(shown(to="ann@example.com", more={"size": 3}))


@pytest.mark.parametrize("text", ["bob", "***", "token", "hunter2", "to=ann@example.com "])
def test_a_text_is_not_found_elsewhere(text: str) -> None:
    assert not checked({"text": text}, NOW).matches(shown(to="ann@example.com", token="hunter2", more={"token": "hunter2"}))


def test_a_task_whose_arguments_are_not_shown_matches_no_text() -> None:
    assert not checked({"text": "a"}, NOW).matches(app.shown_arguments("of other code", pack({"to": "ann"})))
    assert checked({}, NOW).matches(None)


@given(secret=st.text(min_size=1), text=st.text(min_size=1))
def test_what_is_found_does_not_depend_on_a_redacted_value(secret: str, text: str) -> None:
    which = checked({"text": text}, NOW)
    try:
        args = [shown(to="ann", token=value, more={"token": value}) for value in (secret, "")]
    except TypeError:  # half surrogates cannot be sent
        return
    assert which.matches(args[0]) == which.matches(args[1])
