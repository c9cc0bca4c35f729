"""Lines for a pipe, a file, or `--once`: the same panes, as tables that end.

Bars become percent. Nothing is cut where stdout is no terminal, and there is no colour.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from stem_iso.cli import output
from stem_iso.cli.top import figures
from stem_iso.cli.top.grid import Pane, Row, text_of
from stem_iso.cli.top.panes import NAMES, ORDERS, pane, totals
from stem_iso.cli.top.snapshot import Snapshot
from stem_iso.printable import one_line


def lines(snapshot: Snapshot) -> Iterator[str]:
    yield f"{figures.moment(snapshot.at)}  {one_line(snapshot.place)}"
    yield ", ".join(part.text for part in totals(snapshot, snapshot.at))
    if snapshot.note:
        yield one_line(snapshot.note)
    for name in NAMES:
        shown = pane(name, snapshot, snapshot.at, ORDERS[name][0])
        yield ""
        yield f"{shown.title.upper()} {shown.count}"
        yield from _tables(shown) if shown.rows else [shown.empty]


def _tables(shown: Pane) -> Iterator[str]:
    """One table for the rows below each heading; headings stand between them."""
    below: list[Row] = []
    for row in shown.rows:
        if row.heading is not None:
            yield from _table(shown, below)
            below = []
            yield text_of(row.heading).rstrip()
        else:
            below.append(row)
    yield from _table(shown, below)


def _table(shown: Pane, rows: list[Row]) -> Iterator[str]:
    if rows:
        head = [column.head.replace(" ┃ ", "/") for column in shown.columns]
        yield output.table(head, [[each.text for each in row.cells] for row in rows])


def as_data(snapshot: Snapshot) -> dict[str, object]:
    """For `--json`."""
    fields = msgspec.structs.asdict(snapshot)
    fields["workers"] = [
        {**msgspec.structs.asdict(seen.info), "silent_for": seen.silent_for, "answers": seen.answers} for seen in snapshot.workers
    ]
    return fields
