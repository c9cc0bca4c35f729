"""Dialogs over the full screen: a question with yes and no, and a text to read.

No is where the cursor is, and what every key but `y` means: a deed is never done by the key that was meant for the row.
"""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from stem_iso.cli.top.theme import Palette
from stem_iso.cli.top.view import Painter, TextView


class Question(ModalScreen[bool]):
    """Answers True for yes."""

    BINDINGS = [("y", "answer(True)", "yes"), ("n,escape,q", "answer(False)", "no"), ("left,right", "app.focus_next", "")]

    def __init__(self, question: str, consequence: str, word: str) -> None:
        super().__init__()
        self._question, self._consequence, self._word = question, consequence, word

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static(self._question, markup=False, id="question")
            yield Static(self._consequence, markup=False, id="consequence")
            with Horizontal(id="answers"):
                yield Button(f"y  {self._word}", id="yes")
                yield Button("n  leave it", id="no")

    def on_mount(self) -> None:
        self.query_one("#no", Button).focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


class Reading(ModalScreen[None]):
    """A text, as large as the screen allows."""

    BINDINGS = [("escape,q,enter,question_mark,i", "app.pop_screen", "back")]

    def __init__(self, title: str, text: str, palette: Palette) -> None:
        super().__init__()
        self._title_text, self._text = title, text
        self._palette = palette

    def compose(self) -> ComposeResult:
        view = TextView("reading")
        view.painter = Painter(self._palette)
        view.put(self._title_text, self._text)
        yield view

    def on_mount(self) -> None:
        self.query_one(TextView).focus()
