"""Parameters of requests: what is wrong is refused with the name of the field, whatever it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_iso import InvalidOptions
from stem_iso.dashboard import parameters
from stem_iso.dashboard.answers import field_of
from stem_iso.dashboard.api import ROUTES

TABLES = [row.query for row in ROUTES if row.query] + [row.body for row in ROUTES if row.body]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ([("limit", "0")], "limit"),
        ([("limit", "1001")], "limit"),
        ([("limit", "ten")], "limit"),
        ([("limit", "1" * 5000)], "limit"),
        ([("state", "faild")], "state"),
        ([("since", "yesterday")], "since"),
        ([("since", "9999999999d")], "since"),
        ([("order", "random")], "order"),
        ([("name", "x" * 1001)], "name"),
        ([("queue", "a"), ("queue", "b")], "queue"),
        ([("stat", "failed")], "stat"),
    ],
)
def test_what_is_wrong_is_named(query: list[tuple[str, str]], field: str) -> None:
    with pytest.raises(InvalidOptions) as refused:
        parameters.read(query, parameters.LIST_TASKS)
    assert field_of(refused.value) == field


def test_what_a_form_leaves_empty_is_not_there() -> None:
    query = [("state", ""), ("queue", ""), ("name", "thumbs.*"), ("limit", "")]
    assert parameters.read(query, parameters.LIST_TASKS) == {"name": "thumbs.*"}


def test_states_are_one_or_several() -> None:
    assert parameters.read([("state", "failed, retried"), ("state", "queued")], parameters.LIST_TASKS) == {
        "state": ["failed", "retried", "queued"]
    }


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("10m", timedelta(minutes=10)),
        ("1d2h", timedelta(days=1, hours=2)),
        ("2026-01-31T08:00:00Z", datetime(2026, 1, 31, 8, tzinfo=UTC)),
        ("2026-01-31T09:00:00 01:00", datetime(2026, 1, 31, 8, tzinfo=UTC)),  # a + that nobody escaped
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
    ],
)
def test_times_are_so_long_ago_or_a_moment(written: str, meant: object) -> None:
    assert parameters.read([("since", written)], parameters.LIST_TASKS) == {"since": meant}


def refused(call: Callable[[], object]) -> InvalidOptions | None:
    """Whatever else is raised fails the test."""
    try:
        call()
    except InvalidOptions as error:
        return error
    return None


@given(st.sampled_from(TABLES), st.data())
def test_any_query_is_read_or_refused_by_name(table: Any, data: st.DataObject) -> None:
    names = st.sampled_from([each.name for each in table]) | st.text(max_size=10)
    query = data.draw(st.lists(st.tuples(names, st.text()), max_size=4))
    refusal = refused(lambda: parameters.read(query, table))
    assert refusal is None or field_of(refusal) or ": is unknown" in str(refusal)


@given(st.sampled_from([row.body for row in ROUTES if row.body is not None]), st.data())
def test_any_body_is_read_or_refused(table: Any, data: st.DataObject) -> None:
    names = st.sampled_from([each.name for each in table] or ["x"]) | st.text(max_size=10)
    body = data.draw(st.binary() | st.dictionaries(names, anything, max_size=4).map(lambda value: json.dumps(value).encode()))
    refusal = refused(lambda: parameters.read_body(body, table))
    assert refusal is None or ": " in str(refusal)


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"args": {"a": "\\ud800"}}', b'{"args": {"a": 1e999}}', b"\xff", b"[]", b'{"args": 7}'])
def test_a_body_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidOptions):
        parameters.read_body(body, parameters.EDIT)
