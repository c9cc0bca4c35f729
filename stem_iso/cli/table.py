"""Layout of tables: columns that fit a width, and colour.

    room for all     ID   TASK          QUEUE      columns as wide as they must be, numbers to the right
    too little       ID   TASK  QUEUE              the widest columns are cut (…), down to `LEAST`; the first column never is: it is what
                     a1   thu…  defa…              the other commands want to have
    far too little   ID     a1                     a block of lines for each row, in which nothing is cut
                     TASK   thumbs.make

Width counts what a terminal shows: a wide character (CJK, emoji) fills two cells, a combining one none. Colour comes after the layout, so
it moves nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence

import click

LEAST = 8  # cells of a column that is cut
GAP = "  "
Tone = Callable[[str], str | None]  # the colour of a cell by its text


def width_of(text: str) -> int:
    """Cells of a terminal."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int) -> str:
    """At most `width` cells, the last one of them an ellipsis where something is missing."""
    if width_of(text) <= width:
        return text
    kept, used = [], 1
    for character in text:
        used += _cells(character)
        if used > width:
            break
        kept.append(character)
    return "".join(kept) + "…"


def table(
    head: Sequence[str], body: Sequence[Sequence[str]], *, width: int | None, colour: bool, tones: Mapping[str, Tone] | None = None
) -> str:
    """`width`: cells of a line, None for no limit; `tones`: by the head of a column."""
    painted = _Paint(colour, tones or {})
    natural = [max(width_of(row[column]) for row in [head, *body]) for column in range(len(head))]
    widths = natural if width is None else _fitted(natural, head, width)
    if widths is None:
        return "\n".join(_blocks(head, body, width or 0, painted))
    numeric = [bool(body) and all(row[column].isdigit() for row in body) for column in range(len(head))]

    def line(cells: Sequence[str], paint: Callable[[int, str], str]) -> str:
        shown = []
        for column, cell in enumerate(cells):
            text = cut(cell, widths[column])
            blank = " " * (widths[column] - width_of(text))
            text = paint(column, text) if text else text
            shown.append(blank + text if numeric[column] else text + blank)
        return GAP.join(shown).rstrip()

    rows = [line(row, lambda column, text, row=row: painted.cell(head[column], row[column], text)) for row in body]  # type: ignore[misc]
    return "\n".join([line(head, lambda _, text: painted.head(text)), *rows])


def _fitted(natural: Sequence[int], head: Sequence[str], width: int) -> list[int] | None:
    """The widths of columns that fit; the widest give first. None where even the least is too much."""
    widths = list(natural)
    least = [natural[0], *(min(full, max(LEAST, width_of(name))) for full, name in zip(natural[1:], head[1:], strict=True))]
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - width
    if excess > sum(widths) - sum(least):
        return None
    while excess > 0:
        column = max((column for column in range(len(widths)) if widths[column] > least[column]), key=lambda column: widths[column])
        widths[column] -= 1
        excess -= 1
    return widths


def _blocks(head: Sequence[str], body: Sequence[Sequence[str]], width: int, painted: _Paint) -> Iterator[str]:
    label = max(map(width_of, head)) + len(GAP)
    room = max(1, width - label)
    for number, row in enumerate(body):
        if number:
            yield ""
        for name, cell in zip(head, row, strict=True):
            blank = " " * (label - width_of(name))
            if name == head[0] and room < width_of(cell) <= width:  # whole, in a line of its own: it can be copied
                yield painted.head(name)
                yield painted.cell(name, cell, cell)
                continue
            for place, part in enumerate(_folded(cell, room)):
                before = painted.head(name) + blank if place == 0 else " " * label
                yield (before + painted.cell(name, cell, part)).rstrip()


def _folded(text: str, room: int) -> Iterator[str]:
    line, used = "", 0
    for character in text:
        cells = _cells(character)
        if used + cells > room and line:
            yield line
            line, used = "", 0
        line, used = line + character, used + cells
    yield line


class _Paint:
    def __init__(self, colour: bool, tones: Mapping[str, Tone]) -> None:
        self._colour, self._tones = colour, tones

    def head(self, text: str) -> str:
        return click.style(text, bold=True) if self._colour else text

    def cell(self, name: str, whole: str, text: str) -> str:
        tone = self._tones[name](whole) if name in self._tones else None
        return click.style(text, fg=tone) if self._colour and tone else text
