"""Widgets of the full screen that draw lines of spans: bars of one line, a pane of rows with a cursor, a text.

Only the lines that can be seen are laid out and drawn, so a pane of a thousand rows costs what one of twenty does. A line is made of plain
text and of styles that are ours: there is nothing in between that could read markup.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from stem_iso.cli.top.grid import Pane, Row, Span, Tone, clipped, filtered, fit, head_line, line, natural_widths
from stem_iso.cli.top.texts import folded
from stem_iso.cli.top.theme import DARK, Palette

CURSOR, NO_CURSOR = "▸ ", "  "


class Painter:
    """Spans to strips, in the colours of a palette."""

    def __init__(self, palette: Palette) -> None:
        self.palette = palette
        self._styles: dict[tuple[Tone, str], Style] = {}

    def strip(self, spans: Sequence[Span], width: int, background: str | None = None) -> Strip:
        behind = background or self.palette.background
        segments = [Segment(text, self._style(tone, behind)) for text, tone in clipped(spans, width)]
        return Strip(segments).adjust_cell_length(width, Style(bgcolor=behind))

    def rule(self, spans: Sequence[Span], width: int, focused: bool = False) -> Strip:
        """Spans on a line that goes through to the right, a double one below the focus."""
        used = sum(len(span.text) for span in spans)
        head = [Segment(text, self._style(tone, self.palette.background)) for text, tone in clipped(spans, min(used, width))]
        colour = self.palette.tones[Tone.ACCENT] if focused else self.palette.rule
        rest = Segment(("═" if focused else "─") * max(0, width - used), Style(color=colour, bgcolor=self.palette.background))
        return Strip([*head, rest]).adjust_cell_length(width, Style(bgcolor=self.palette.background))

    def _style(self, tone: Tone, behind: str) -> Style:
        key = tone, behind
        if key not in self._styles:
            self._styles[key] = Style(color=self.palette.tones[tone], bgcolor=behind, bold=tone is Tone.STRONG or None)
        return self._styles[key]


class SpanLines(Widget):
    """A few lines that stand still."""

    def __init__(self, id: str, in_bar: bool = False) -> None:
        super().__init__(id=id)
        self.painter = Painter(DARK)
        self._in_bar = in_bar
        self._lines: list[list[Span]] = []

    def show(self, *lines: list[Span]) -> None:
        if list(lines) != self._lines:
            if len(lines) != len(self._lines):
                self.styles.height = max(1, len(lines))
            self._lines = list(lines)
            self.refresh()

    def render_line(self, y: int) -> Strip:
        spans = self._lines[y] if y < len(self._lines) else []
        return self.painter.strip(spans, self.size.width, self.painter.palette.bar if self._in_bar else None)


class PaneView(ScrollView, can_focus=True):
    """A pane with a cursor, which stays on its thing from one snapshot to the next, and near its place where that is gone."""

    class Moved(Message):
        """The cursor is on another row, or the pane has another one there."""

        def __init__(self, view: PaneView) -> None:
            super().__init__()
            self.view = view

    class Chosen(Moved):
        """Enter, or a second click."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__(id=name)
        self.painter = Painter(DARK)
        self.number, self.order, self.words = number, "", ""
        self.titled = True  # whether it has a title of its own
        self.pane = Pane(name, name, ())
        self.rows: list[Row] = []
        self._at = 0
        self._natural: list[int] = []
        self._widths: dict[int, int] = {}

    def put(self, pane: Pane) -> None:
        """What is to be shown from now on."""
        self.pane, self._natural = pane, natural_widths(pane)
        self.refilter()

    def filter(self, words: str) -> None:
        self.words = words
        self.refilter()

    @property
    def _tops(self) -> int:
        """SpanLines that do not scroll: the title, and the heads of the columns."""
        return 2 if self.titled else 1

    @property
    def current(self) -> Row | None:
        return self.rows[self._at] if self._at < len(self.rows) else None

    def refilter(self) -> None:
        """Choose the rows anew, and lay them out."""
        before = self.current
        self.rows = list(filtered(self.pane.rows, self.words.casefold().split()))
        if before is not None:
            places = {row.key: place for place, row in enumerate(self.rows)}
            self._at = places.get(before.key, min(self._at, max(0, len(self.rows) - 1)))
        else:
            self._at = 0
        self._resized()
        self.post_message(self.Moved(self))

    def _resized(self) -> None:
        height = len(self.rows) + self._tops
        if self.virtual_size.height != height:
            self.virtual_size = Size(self.size.width, height)
        width = self.scrollable_content_region.width
        self._widths = fit(self.pane.columns, self._natural, width - len(CURSOR)) if self.pane.columns and width else {}
        self._reveal()
        self.refresh()

    def on_resize(self, event: events.Resize) -> None:
        self._resized()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    # -- draw ----------------------------------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        inner = width - len(CURSOR)
        if y == self._tops - 2:
            return self.painter.rule(self._title(), width, self.has_focus)
        if y == self._tops - 1:
            heads = head_line(self.pane.columns, self._widths, inner) if self._widths else []
            return self.painter.strip([Span(NO_CURSOR), *heads], width)
        place = y - self._tops + round(self.scroll_y)
        if place >= len(self.rows):
            nothing = self._nothing() if not self.rows and y == self._tops else ""
            return self.painter.strip([Span(f"{NO_CURSOR}{nothing}", Tone.DIM)], width)
        chosen = place == self._at and self.has_focus
        spans = [Span(CURSOR if chosen else NO_CURSOR, Tone.ACCENT), *line(self.pane.columns, self.rows[place], self._widths, inner)]
        return self.painter.strip(spans, width, self.painter.palette.chosen if chosen else None)

    def _title(self) -> list[Span]:
        focused = self.has_focus
        found = [Span(f"{self.number} ", Tone.ACCENT), Span(f"{self.pane.title} ", Tone.STRONG if focused else Tone.PLAIN)]
        things = sum(row.heading is None for row in self.rows)
        count = f"{things} of {self.pane.count}" if self.words else str(self.pane.count)
        found.append(Span(f"{count} ", Tone.STRONG if focused else Tone.DIM))
        if self.order:
            found.append(Span(f"by {self.order} ", Tone.DIM))
        return found

    def _nothing(self) -> str:
        return "nothing matches the filter" if self.words and self.pane.rows else self.pane.empty

    # -- move ----------------------------------------------------------------------------------------------------------------------

    def move_to(self, place: int) -> None:
        self._at = max(0, min(place, len(self.rows) - 1))
        self._reveal()
        self.refresh()
        self.post_message(self.Moved(self))

    def _reveal(self) -> None:
        """Scroll so far that the cursor can be seen."""
        height = max(1, self.size.height - self._tops)
        top = round(self.scroll_y)
        wanted = min(max(top, self._at - height + 1), self._at)
        # A heading just above the first row is shown with it.
        if wanted == 1 and self._at == 1:
            wanted = 0
        if wanted != top:
            self.scroll_to(y=wanted, animate=False, force=True)

    def on_key(self, event: events.Key) -> None:
        page = max(1, self.size.height - self._tops - 1)
        steps = {"up": -1, "down": 1, "pageup": -page, "pagedown": page, "home": -len(self.rows), "end": len(self.rows)}
        if event.key in steps:
            self.move_to(self._at + steps[event.key])
        elif event.key == "enter":
            self.post_message(self.Chosen(self))
        else:
            return
        event.stop()
        event.prevent_default()

    def on_click(self, event: events.Click) -> None:
        place = event.y - self._tops + round(self.scroll_y)
        if event.y >= self._tops and place < len(self.rows):
            again = place == self._at
            self.move_to(place)
            if again:
                self.post_message(self.Chosen(self))


class TextView(ScrollView, can_focus=True):
    """A text below its title, folded to the width. `tail`: the end is what matters."""

    def __init__(self, id: str, tail: bool = False) -> None:
        super().__init__(id=id)
        self.painter = Painter(DARK)
        self._tail = tail
        self._title, self._text = "", ""
        self._lines: list[str] = []

    def put(self, title: str, text: str) -> None:
        if (title, text) != (self._title, self._text):
            self._title, self._text = title, text
            self._resized()

    def on_resize(self, event: events.Resize) -> None:
        self._resized()

    def _resized(self) -> None:
        width = self.size.width
        self._lines = folded(self._text, width - 3) if width else []  # a column is left to the scrollbar
        self.virtual_size = Size(width, len(self._lines) + 1)
        self.scroll_to(y=len(self._lines) if self._tail else 0, animate=False, force=True)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        if y == 0:
            return self.painter.rule([Span(f"{self._title} ", Tone.STRONG)], width)
        place = y - 1 + round(self.scroll_y)
        text = self._lines[place] if place < len(self._lines) else ""
        return self.painter.strip([Span(f" {text}")], width)
