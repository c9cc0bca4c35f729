"""Columns and rows that fit a width: the layout of every pane, as text in cells of a terminal.

    Pane(columns, rows) ── fit(pane, width) ──> widths ── line(row, widths) ──> [Span("4711", Tone.PLAIN), Span("  "), …]

Rules
 1. A line is exactly as wide as it is asked to be. Width counts what a terminal shows, as in `cli/table`.
 2. Too narrow: the column of the highest `rank` goes, then the next; columns of rank 0 stay, and are cut. Too wide: what is left goes to
    the columns that stretch (bars, texts), each up to its `most`.
 3. The text of a cell is safe by birth: `cell` passes everything through `one_line`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby
from typing import NamedTuple

from stem_iso.cli.table import cut, width_of
from stem_iso.cli.top import figures
from stem_iso.printable import one_line

GAP, PART_GAP = 2, 3  # cells between two columns, and between two parts of a line
WIDEST = 1000  # cells: what is longer is cut before it is measured


class Tone(Enum):
    """What a text is, for `theme` to colour."""

    PLAIN = "plain"
    DIM = "dim"
    STRONG = "strong"
    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"
    ACCENT = "accent"


class Span(NamedTuple):
    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Cell:
    """`share` not None: a bar, with its `mark`; then `text` is what is said where no bar is drawn."""

    text: str = ""
    tone: Tone = Tone.PLAIN
    share: float | None = None
    mark: float | None = None


def cell(text: object, tone: Tone = Tone.PLAIN) -> Cell:
    """Of anybody's text."""
    return Cell(one_line(str(text)[:WIDEST]), tone)


@dataclass(frozen=True, slots=True)
class Column:
    """`least` and `most` are cells; `most` None: as its widest cell. `stretch`: takes what is left over."""

    head: str
    least: int
    most: int | None = None
    right: bool = False
    rank: int = 0
    stretch: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """`key` says which thing it is, from one snapshot to the next. `heading`: one text over all columns, and the cells are for nobody.
    `search`: what a filter looks at, in lower case."""

    key: tuple[str, ...]
    cells: tuple[Cell, ...] = ()
    heading: tuple[Span, ...] | None = None
    subject: object = None  # what the keys act on
    search: str = ""


@dataclass(frozen=True, slots=True)
class Pane:
    """`count` is of the things in it, headings left out; `empty`: what is said where there are none."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: list[Row] = field(default_factory=list)
    count: int = 0
    empty: str = ""
    order: str = ""


def natural_widths(pane: Pane) -> list[int]:
    """Cells that the widest text of each column takes; of a bar its least."""
    widths = [width_of(column.head) for column in pane.columns]
    for row in pane.rows:
        for place, each in enumerate(row.cells):
            if each.share is None and len(each.text) * 2 > widths[place]:
                widths[place] = max(widths[place], width_of(each.text))
    return widths


def fit(columns: Sequence[Column], natural: Sequence[int], width: int) -> dict[int, int]:
    """The columns that are shown, by place, and their widths. There is always one."""
    shown = dict(enumerate(columns))
    # Nobody needs more than this; a bar has no text of its own, and takes its least.
    wanted = {place: max(column.least, min(natural[place], column.most or WIDEST)) for place, column in shown.items()}
    while len(shown) > 1 and sum(_least(shown[place], wanted[place]) for place in shown) + GAP * (len(shown) - 1) > width:
        last = max(shown, key=lambda place: (shown[place].rank, place))
        del shown[last]
    widths = {place: _least(column, wanted[place]) for place, column in shown.items()}
    spare = width - sum(widths.values()) - GAP * (len(widths) - 1)
    if spare < 0:
        only = next(iter(widths))
        return {only: width}
    spare = _give(widths, {place: wanted[place] for place in widths}, spare)
    _give(widths, {place: shown[place].most or WIDEST for place in widths if shown[place].stretch}, spare)
    return widths


def _least(column: Column, wanted: int) -> int:
    return min(column.least, wanted)


def _give(widths: dict[int, int], wanted: Mapping[int, int], spare: int) -> int:
    """Evenly, a cell at a time among those that still want some; the narrowest first. What is left."""
    while spare > 0:
        open = [place for place in wanted if widths[place] < wanted[place]]
        if not open:
            break
        for place in sorted(open, key=lambda place: widths[place])[:spare]:
            widths[place] += 1
            spare -= 1
    return spare


def head_line(columns: Sequence[Column], widths: Mapping[int, int], width: int) -> list[Span]:
    heads = (_aligned(columns[place].head, cells, columns[place].right) for place, cells in widths.items())
    return _padded(([Span(head, Tone.DIM)] for head in heads), width)


def line(columns: Sequence[Column], row: Row, widths: Mapping[int, int], width: int) -> list[Span]:
    if row.heading is not None:
        return clipped(row.heading, width)
    return _padded((_drawn(row.cells[place], cells, columns[place].right) for place, cells in widths.items()), width)


def _drawn(each: Cell, width: int, right: bool) -> list[Span]:
    if each.share is None:
        return [Span(_aligned(each.text, width, right), each.tone)]
    tones = {figures.EMPTY: Tone.DIM, figures.MARK: Tone.STRONG}
    parts = groupby(figures.bar(each.share, width, each.mark), lambda letter: tones.get(letter, each.tone))
    return [Span("".join(letters), tone) for tone, letters in parts]


def _aligned(text: str, width: int, right: bool) -> str:
    text = cut(text, width) if width > 0 else ""
    blank = " " * (width - width_of(text))
    return blank + text if right else text + blank


def _padded(columns: Iterable[list[Span]], width: int) -> list[Span]:
    found: list[Span] = []
    for spans in columns:
        if found:
            found.append(Span(" " * GAP))
        found += spans
    return clipped(found, width)


def packed(parts: Iterable[Span], width: int) -> list[list[Span]]:
    """Parts beside each other, in as many lines as they take."""
    lines: list[list[Span]] = [[]]
    used = 0
    for part in parts:
        taken = width_of(part.text) + (PART_GAP if lines[-1] else 0)
        if lines[-1] and used + taken > width:
            lines.append([])
            used, taken = 0, width_of(part.text)
        if lines[-1]:
            lines[-1].append(Span(" " * PART_GAP))
        lines[-1].append(part)
        used += taken
    return lines


def clipped(spans: Iterable[Span], width: int) -> list[Span]:
    """Exactly so wide: cut with an ellipsis, or filled with blanks."""
    found, used = [], 0
    for text, tone in spans:
        room = width - used
        if width_of(text) > room:
            if room > 0:
                text = cut(text, room)
                found.append(Span(text, tone))
                used += width_of(text)
            break
        found.append(Span(text, tone))
        used += width_of(text)
    if used < width:
        found.append(Span(" " * (width - used)))
    return found


def text_of(spans: Iterable[Span]) -> str:
    return "".join(span.text for span in spans)


def search_text(parts: Iterable[str]) -> str:
    return "\n".join(parts).casefold()


def matches(row: Row, words: Sequence[str]) -> bool:
    """All of these, each in lower case."""
    return all(word in row.search for word in words)


def filtered(rows: Sequence[Row], words: Sequence[str]) -> Iterator[Row]:
    """Those that match, and the headings of those; a heading that matches brings all that is below it."""
    if not words:
        yield from rows
        return
    heading: Row | None = None
    whole = False
    for row in rows:
        if row.heading is not None:
            heading, whole = row, matches(row, words)
            if whole:
                yield row
                heading = None
        elif whole or matches(row, words):
            if heading is not None:
                yield heading
                heading = None
            yield row
