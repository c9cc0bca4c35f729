"""Values as pages show them: durations, sizes, bars, timelines, columns, stacks, texts that cannot be seen."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_iso.dashboard import drawings, formats, stack_text
from stem_iso.dashboard.renderer import environment, query, segment


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        *[(None, "–"), (0, "0 s"), (-1, "0 s"), (1e-7, "1 µs"), (0.00085, "850 µs"), (0.0012, "1.2 ms"), (0.0123, "12 ms")],
        *[(0.25, "0.2 s"), (2.0, "2 s"), (9.94, "9.9 s"), (42.4, "42 s"), (59.6, "1 m"), (73.2, "1 m 13 s"), (7200, "2 h")],
        *[(7500, "2 h 5 m"), (273_600, "3 d 4 h"), (1e9, "11,574 d 1 h")],
    ],
)
def test_durations_have_two_units_at_most(seconds: float | None, shown: str) -> None:
    assert formats.duration(seconds) == shown


def test_sizes_rates_and_shares() -> None:
    assert [formats.size(each) for each in (None, 0, 999, 1536, 256 << 20, 12_884_902)] == [
        "–",
        "0 B",
        "999 B",
        "1.5 KiB",
        "256 MiB",
        "12.3 MiB",
    ]
    assert [formats.rate(each) for each in (0, 0.25, 2.04, 1234.5)] == ["0/s", "15.0/min", "2.0/s", "1,234/s"]
    assert [formats.share(part, 1000) for part in (0, 0.5, 2, 500)] == ["0 %", "< 0.1 %", "0.2 %", "50 %"]
    assert formats.share(3, 0) == "0 %"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner), max_leaves=8))
def test_arguments_that_are_edited_read_back_as_they_were(value: Any) -> None:
    written = formats.exact(value)
    assert json.loads(written) == value
    assert written.replace("\n", "").isprintable() or not formats.STRANGE.search(written)


def test_data_that_is_too_long_or_too_deep_is_cut_and_says_so() -> None:
    assert formats.pretty("x" * 300_000).endswith("100,002 more characters; the JSON of /api/tasks has them")
    assert formats.compact({"path": "cat.png", "n": [1]}) == 'path="cat.png", n=[1]' and len(formats.compact("y" * 999)) == 160
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert "nested too deeply" in formats.pretty(deep)


def test_a_bar_says_how_near_the_end_is() -> None:
    def tone(value: float) -> str:
        drawn = drawings.bar(value, 60, 120)
        assert drawn is not None and drawn.soft == 50
        return drawn.tone

    assert [tone(value) for value in (0, 59, 60, 107, 108, 120, 500)] == ["calm", "calm", "late", "late", "near", "over", "over"]
    assert drawings.bar(5, None, None) is None
    only_soft = drawings.bar(90, 60, None)
    assert only_soft is not None and only_soft.open and only_soft.end == 135 and only_soft.fill < 100


def task(**fields: Any) -> dict[str, Any]:
    """Tried once."""
    at = "2026-01-01T00:00:{:02}+00:00"
    elapsed = fields["finished_at"] - fields["started_at"] if {"started_at", "finished_at"} <= fields.keys() else None
    moments = {
        name: None if (second := fields.pop(name, None)) is None else at.format(second)
        for name in ("enqueued_at", "not_before", "started_at", "finished_at")
    }
    newest = {"run": 0, "attempt": 0, "reason": None, "error": None, "elapsed": elapsed, "attempts": []}
    return {"state": "succeeded", "limits": None, **newest, **moments, **fields}


NOW = 1767225600.0  # 2026-01-01


def test_a_timeline_has_what_was_waited_what_ran_and_the_limits() -> None:
    drawn = drawings.timeline(
        task(enqueued_at=0, started_at=10, finished_at=30, limits={"soft_time_limit": 5, "hard_time_limit": 60}), NOW + 50
    )
    assert drawn is not None
    assert [(step.kind, round(step.left), round(step.width), step.seconds) for step in drawn.steps] == [
        ("waited", 0, 14, 10),
        ("succeeded", 14, 29, 20),
    ]
    assert [kind for kind, _ in drawn.marks] == ["soft", "hard"]
    assert [place for _, place in drawn.marks] == pytest.approx([100 * 15 / 70, 100])


@pytest.mark.parametrize(
    "fields", [{}, {"state": "queued", "enqueued_at": 1}, {"state": "retried", "enqueued_at": 1, "not_before": 59}, {"started_at": 3}]
)
def test_a_timeline_of_what_has_not_begun_or_is_not_known_fails_nowhere(fields: dict[str, Any]) -> None:
    drawn = drawings.timeline(task(**fields), NOW + 5)
    assert drawn is None or all(0 <= step.left <= 100 and 0 <= step.width <= 100 for step in drawn.steps)


@given(st.lists(st.integers(0, 10**6), max_size=60), st.integers(1, 7))
def test_buckets_lose_nothing_and_the_newest_is_whole(column: list[int], width: int) -> None:
    found = drawings.in_buckets(column, width)
    assert sum(found) == sum(column)
    if len(column) >= width:
        assert found[-1] == sum(column[-width:])


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=20))
def test_columns_stay_in_their_picture(counts: list[tuple[int, int]]) -> None:
    found = drawings.columns({"a": [each[0] for each in counts], "b": [each[1] for each in counts]}, ("a", "b"))
    for column in found:
        assert column.left >= 0 and column.left + column.width <= 100.001
        assert all(height > 0 and bottom + height <= 100.001 for _, bottom, height in column.parts)


TRACEBACK = """Traceback (most recent call last):
  File "/usr/lib/python3.11/runner.py", line 5 in run
  File "/srv/shop/tasks.py", line 12, in make
    raise ValueError(path)
    ^^^^^^^^^^
ValueError: no picture
"""


def test_a_traceback_is_taken_apart() -> None:
    read = stack_text.parsed(TRACEBACK)
    assert [(frame.file, frame.function, frame.code, frame.library) for frame in read.frames] == [
        ("runner.py:5", "run", "", True),
        ("tasks.py:12", "make", "raise ValueError(path)", False),
    ]
    assert read.frames[1].folder == "/srv/shop/" and read.rest == "ValueError: no picture"


def test_a_dump_of_faulthandler_is_turned_around() -> None:
    dump = 'Current thread 0x1 (most recent call first):\n  File "/a.py", line 2 in inner\n  File "/a.py", line 9 in outer\n'
    assert [frame.function for frame in stack_text.parsed(dump).frames] == ["outer", "inner"]


@given(st.text(max_size=300))
def test_any_text_is_a_stack_or_none(text: str) -> None:
    assert len(stack_text.parsed(text).frames) <= text.count("File")


@given(st.text(max_size=50))
def test_any_text_is_escaped_visible_and_fits_into_an_address(text: str) -> None:
    shown = environment().from_string("{{ text }}").render(text=text)
    assert "<" not in shown and not formats.STRANGE.search(shown) and '"' not in shown
    assert segment(text).isascii() and not set(segment(text)) & set("/?#&\"'<> ")
    assert query({"name": text, "none": None}).isascii()
