"""Whatever a task returned can be shown."""

from __future__ import annotations

import base64
import dataclasses
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_iso import TaskState, TaskStatus
from stem_iso.cli import output

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5) | st.binary(max_size=5)
KEYS = st.text(max_size=5) | st.integers(-100, 100) | st.binary(max_size=5) | st.booleans()
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS | st.datetimes(timezones=st.just(UTC)), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)


@given(VALUES)
def test_all_that_travels_has_a_form_in_json(value: Any) -> None:
    arrived = msgspec.msgpack.decode(msgspec.msgpack.encode(value), strict=False)
    written = output.to_json(arrived)
    json.loads(written)
    assert "\n" not in written


@given(st.binary())
def test_bytes_are_base64(value: bytes) -> None:
    assert base64.b64decode(json.loads(output.to_json({"value": value}))["value"]) == value


@given(st.datetimes(timezones=st.just(UTC)))
def test_datetimes_are_iso_8601(value: datetime) -> None:
    assert datetime.fromisoformat(json.loads(output.to_json(value))) == value


@pytest.mark.parametrize(
    ("head", "rows", "drawn"),
    [
        (("A", "B"), [("x", 1), ("long", 100)], "A       B\nx       1\nlong  100"),
        (("A", "B"), [("x", "y")], "A  B\nx  y"),
    ],
)
def test_columns_are_as_wide_as_they_must_be(head: tuple[str, ...], rows: list[tuple[object, ...]], drawn: str) -> None:
    assert output.table(head, rows) == drawn


# -- models of pydantic ------------------------------------------------------------------------------------------------------------------


class Line(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    at: datetime = pydantic.Field(alias="When")
    price: Decimal

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def free(self) -> bool:
        return not self.price


class Names(pydantic.RootModel[list[str]]): ...


class Bill(msgspec.Struct):
    line: Line


@dataclasses.dataclass
class Sale:
    lines: tuple[Line, ...]


LINE = Line(When=datetime(2026, 1, 31, tzinfo=UTC), price=Decimal("1.50"))
SHOWN = {"When": "2026-01-31T00:00:00Z", "price": "1.50", "free": False}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (LINE, SHOWN),
        ([LINE], [SHOWN]),
        ({"one": {"two": LINE}}, {"one": {"two": SHOWN}}),
        ({(1, 2): LINE}, {"(1, 2)": SHOWN}),
        (Sale((LINE,)), {"lines": [SHOWN]}),
        (Bill(LINE), {"line": SHOWN}),
        (Names(["a"]), ["a"]),
    ],
)
def test_a_model_of_pydantic_is_shown_as_pydantic_says_it(value: Any, shown: Any) -> None:
    status = TaskStatus(id="a", name="n", queue="q", state=TaskState.SUCCEEDED, result=value)
    assert status.as_dict()["result"] == dict(status)["result"] == json.loads(output.to_json(value)) == shown


def test_a_model_without_a_form_in_json_is_shown_as_text() -> None:
    class Raw(pydantic.BaseModel):
        body: bytes

    assert json.loads(output.to_json([Raw(body=b"\xff")])) == [r"body=b'\xff'"]
