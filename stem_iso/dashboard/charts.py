"""Charts of the overview: what a minute (the last hour) or five (the last day) held, as the page's script draws it.

    CountSeries ── chart ──> Chart     `data` for the script, `columns` for who has none, `summary` for who sees neither

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from stem_iso.dashboard.drawings import GraphColumn, columns, in_buckets
from stem_iso.dashboard.formats import count

if TYPE_CHECKING:
    from stem_iso.dashboard.shapes import CountSeries

STACKED = ("succeeded", "retried", "failed")  # how attempts ended, lowest first
DAY_BUCKET = 5  # minutes


@dataclass(frozen=True, slots=True)
class Chart:
    """`minutes`: what one column stands for. `data`: `at` in seconds since the epoch, and a list of counts for each kind."""

    name: str
    title: str
    minutes: int
    data: dict[str, list[int]]
    columns: list[GraphColumn]
    summary: str


def charts(hour: CountSeries, day: CountSeries) -> list[Chart]:
    return [_chart("hour", "Last hour, by the minute", hour, 1), _chart("day", "Last day, by five minutes", day, DAY_BUCKET)]


def _chart(name: str, title: str, series: CountSeries, minutes: int) -> Chart:
    all_columns = cast("dict[str, list[int]]", series)
    found = {kind: in_buckets(all_columns[kind], minutes) for kind in ("enqueued", *STACKED)}
    at = series["at"]
    first = len(at) % minutes
    data = {"at": ([at[0]] if first else []) + at[first::minutes], **found}
    return Chart(name, title, minutes, data, columns(found, STACKED), _summary(found))


def _summary(found: dict[str, list[int]]) -> str:
    return ", ".join(f"{count(sum(found[kind]))} {kind}" for kind in ("enqueued", *STACKED))
