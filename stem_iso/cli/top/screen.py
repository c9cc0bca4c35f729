"""The full screen of `stem-iso top`: one application of textual, which shows what the reader finds and asks before it does anything.

    Reader ── Found(Snapshot | Away) ──> views        key ── action_of ──> Question ── yes ──> thread ── Done ──> the line of news

    narrow                     large (LARGE or more)
    ┌ heading ───────────┐     ┌ heading ──────────────────┐
    │ totals             │     │ totals                    │
    │ the chosen pane    │     │ isolates                  │
    │                    │     │ queues      │ time-outs   │
    │                    │     │ failures    │ stack       │
    └ keys ──────────────┘     └ keys ─────────────────────┘

The loop asks no broker and waits for no thread. A deed that hangs is said to go on; the screen can be left meanwhile.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.message import Message
from textual.widgets import Input

from stem_iso.app import Stem
from stem_iso.cli.top import texts
from stem_iso.cli.top.actions import ACTIONS, KeyAction, action_of, outcome
from stem_iso.cli.top.dialogs import Question, Reading
from stem_iso.cli.top.grid import Span, Tone, packed
from stem_iso.cli.top.panes import FAILURES, ISOLATES, NAMES, ORDERS, QUEUES, TIME_OUTS, pane, totals
from stem_iso.cli.top.reader import Reader
from stem_iso.cli.top.snapshot import Away, Snapshot, Subject
from stem_iso.cli.top.stylesheet import CSS, theme_of, variables
from stem_iso.cli.top.theme import DARK, LIGHT, Palette
from stem_iso.cli.top.view import Painter, PaneView, SpanLines, TextView
from stem_iso.printable import one_line

LARGE = 110, 32  # columns and lines from which all panes are shown at once
TICK = 0.5  # seconds
NEWS_LIFE = 15.0  # seconds that the outcome of a deed is shown
INTERRUPTED = 130
OURS = frozenset({"act", "pane", "next", "order", "filter", "help", "leave", "palette", "everything"})  # not while a dialog is open


class Found(Message):
    def __init__(self, report: Snapshot | Away) -> None:
        super().__init__()
        self.report = report


class Done(Message):
    """A deed has ended."""

    def __init__(self, action: KeyAction, subject: Subject, done: bool, text: str) -> None:
        super().__init__()
        self.action, self.subject, self.done, self.text = action, subject, done, text


class Top(App[int]):
    """`run()` gives the exit code."""

    CSS = CSS
    ENABLE_COMMAND_PALETTE = False
    BINDINGS = [
        Binding("ctrl+c", "interrupt", priority=True),
        Binding("ctrl+q,q", "leave"),
        Binding("ctrl+z", "suspend_process"),
        Binding("question_mark", "help"),
        Binding("slash", "filter"),
        Binding("tab", "next(1)", priority=True),  # before the screen's own, which passes over panes that are not displayed
        Binding("shift+tab", "next(-1)", priority=True),
        Binding("escape", "everything"),
        Binding("s", "order"),
        Binding("t", "palette"),
        *[Binding(str(number), f"pane('{name}')") for number, name in enumerate(NAMES, 1)],
        *[Binding(key, f"act('{key}')") for key in dict.fromkeys(action.key for action in ACTIONS)],
    ]

    def __init__(self, stem: Stem, reader: Reader, place: str, palette: Palette = DARK) -> None:
        super().__init__()
        self._stem, self._reader, self._place, self._palette = stem, reader, place, palette
        self._snapshot: Snapshot | None = None
        self._away: Away | None = None
        self._heard_at = time.time()
        self._orders = dict.fromkeys(NAMES, 0)
        self._news: tuple[float, list[Span]] = 0.0, []
        self._views = {name: PaneView(name, number) for number, name in enumerate(NAMES, 1)}
        self._lines = {id: SpanLines(id, id in ("heading", "hints")) for id in ("heading", "totals", "tabs", "news", "hints")}
        self._stack, self._box = TextView("stack", tail=True), Input(id="filter", placeholder="words that a row must hold")
        self._stack.can_focus = False
        for each in (DARK, LIGHT):
            self.register_theme(theme_of(each))

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """What the style sheet names, for the moment before our theme is on."""
        return variables(DARK)

    # -- build ---------------------------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        yield from (self._lines[id] for id in ("heading", "totals", "tabs"))
        with Container(id="body"):
            yield from self._views.values()
            yield self._stack
        yield self._lines["news"]
        yield self._box
        yield self._lines["hints"]

    def on_mount(self) -> None:
        self._paint()
        self._lay_out()
        for name in NAMES:
            self._show_order(name)
        self._views[ISOLATES].focus()
        self.set_interval(TICK, self._tick)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            if threading.current_thread() is threading.main_thread():
                loop.add_signal_handler(number, self.exit, 128 + number)
        self.app_resume_signal.subscribe(self, self._repaint)
        self._reader.start(self._found)
        self._tick()

    def on_unmount(self) -> None:
        self._reader.stop()

    def _paint(self) -> None:
        self.theme = self._palette.name
        painter = Painter(self._palette)
        painted: list[SpanLines | PaneView | TextView] = [*self._lines.values(), *self._views.values(), self._stack]
        for view in painted:
            view.painter = painter
            view.refresh()

    def _repaint(self, app: object) -> None:
        """After Ctrl-Z and fg the terminal is empty, which textual's look at what has changed does not know."""
        for widget in self.screen.walk_children():
            widget.refresh()

    def on_resize(self, event: events.Resize) -> None:
        self._lay_out()

    def _lay_out(self) -> None:
        large = self.size.width >= LARGE[0] and self.size.height >= LARGE[1]
        self.screen_stack[0].set_class(large, "large")
        self.screen_stack[0].set_class(not large, "narrow")
        for view in self._views.values():
            view.titled = large
            view.refilter()

    def _found(self, report: Snapshot | Away) -> None:
        """By the thread that reads."""
        self.post_message(Found(report))

    # -- show ----------------------------------------------------------------------------------------------------------------------

    def on_found(self, message: Found) -> None:
        self._heard_at = time.time()
        if isinstance(message.report, Away):
            self._away = message.report
        else:
            before, self._snapshot, self._away = self._snapshot, message.report, None
            for name in NAMES:
                if before is None or name == ISOLATES or _source(name, before) != _source(name, message.report):
                    self._fill(name)
        self._tick()

    def _fill(self, name: str) -> None:
        if self._snapshot is not None:
            self._views[name].put(pane(name, self._snapshot, self._snapshot.at, ORDERS[name][self._orders[name]]))

    def _tick(self) -> None:
        """What changes with the time alone."""
        now, width, snapshot = time.time(), self.size.width, self._snapshot
        away = texts.absence(self._away, self._heard_at, now)
        self._lines["heading"].show(texts.heading(snapshot, self._place, now, width, self._words))
        if away is not None:
            self._lines["totals"].show([Span(" "), *texts.banner(away, snapshot, now)])
        elif snapshot is not None:
            self._lines["totals"].show(*([Span(" "), *line] for line in packed(totals(snapshot, now), width - 1)))
        else:
            self._lines["totals"].show([Span(" asking the broker …", Tone.DIM)])
        self._lines["tabs"].show(self._tabs())
        self._lines["hints"].show(texts.hints(self._subject(), bool(self._words), self.size.width))
        at, news = self._news
        self._lines["news"].set_class(bool(news) and now - at < NEWS_LIFE, "shown")
        self._lines["news"].show(news)

    def _tabs(self) -> list[Span]:
        found = [Span(" ")]
        for name, view in self._views.items():
            chosen = view is self._current
            mark = "▸" if chosen else " "
            found += [
                Span(f"{mark}{view.number} ", Tone.ACCENT),
                Span(f"{view.pane.title or name} ", Tone.STRONG if chosen else Tone.PLAIN),
            ]
            found.append(Span(f"{view.pane.count}    ", Tone.STRONG if chosen else Tone.DIM))
        found.append(Span(f"by {self._current.order}" if self._current.order else "", Tone.DIM))
        return found

    def on_pane_view_moved(self, message: PaneView.Moved) -> None:
        if message.view is self._current:
            self._lines["hints"].show(texts.hints(self._subject(), bool(self._words), self.size.width))
        self._show_stack()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        if isinstance(event.widget, PaneView):
            for view in self._views.values():
                view.set_class(view is event.widget, "current")
            for name in (TIME_OUTS, FAILURES):
                self.screen_stack[0].set_class(event.widget.id == name, f"on-{name}")
            self._show_stack()
            self._tick()

    def _show_stack(self) -> None:
        """Of the row that is chosen among the failures where these have the cursor, else among the time-outs."""
        view = self._views[FAILURES if self._current is self._views[FAILURES] else TIME_OUTS]
        row = view.current
        if row is None or not isinstance(row.subject, Subject):
            self._stack.put("Stack", "")
        else:
            self._stack.put(*texts.details(row.subject, time.time()))

    @property
    def _words(self) -> str:
        return self._views[ISOLATES].words

    @property
    def _current(self) -> PaneView:
        return next((view for view in self._views.values() if view.has_class("current")), self._views[ISOLATES])

    def _subject(self) -> Subject | None:
        row = self._current.current
        return row.subject if row is not None and isinstance(row.subject, Subject) else None

    def _say(self, text: str, tone: Tone) -> None:
        self._news = time.time(), [Span(f" {one_line(text)}", tone)]
        self._tick()

    # -- keys ----------------------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The keys of a dialog are its own."""
        return len(self.screen_stack) == 1 or action not in OURS

    def action_interrupt(self) -> None:
        self.exit(INTERRUPTED)

    def action_leave(self) -> None:
        self.exit(0)

    def action_help(self) -> None:
        self.push_screen(Reading("Help", texts.HELP, self._palette))

    def action_pane(self, name: str) -> None:
        view = self._views[name]
        view.add_class("current")  # what is not displayed cannot be focused
        view.focus()

    def action_next(self, step: int) -> None:
        self.action_pane(NAMES[(self._current.number - 1 + step) % len(NAMES)])

    def action_order(self) -> None:
        name = self._current.pane.name
        self._orders[name] = (self._orders[name] + 1) % len(ORDERS[name])
        self._show_order(name)
        self._fill(name)

    def _show_order(self, name: str) -> None:
        self._views[name].order = ORDERS[name][self._orders[name]] if len(ORDERS[name]) > 1 else ""
        self._views[name].refresh()

    def action_palette(self) -> None:
        self._palette = LIGHT if self._palette is DARK else DARK
        self._paint()

    def on_pane_view_chosen(self, message: PaneView.Chosen) -> None:
        if (subject := self._subject()) is not None:
            self.push_screen(Reading(*texts.details(subject, time.time()), self._palette))

    # -- filter --------------------------------------------------------------------------------------------------------------------

    def action_filter(self) -> None:
        self._box.add_class("shown")
        self._box.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        for view in self._views.values():
            view.filter(event.value)
        self._tick()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._close_filter()

    def action_everything(self) -> None:
        self._box.value = ""
        self._close_filter()

    def _close_filter(self) -> None:
        self._box.remove_class("shown")
        self._current.focus()

    # -- deeds ---------------------------------------------------------------------------------------------------------------------

    def action_act(self, key: str) -> None:
        subject = self._subject()
        action = action_of(key, subject)
        if action is None or subject is None:
            return
        if action.reads:
            self._perform(action, subject)
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._perform(action, subject)

        self.push_screen(Question(action.question(subject), action.consequence, action.word), answered)

    def _perform(self, action: KeyAction, subject: Subject) -> None:
        self._say(f"{action.word}: on its way …", Tone.DIM)

        def perform() -> None:
            done, text = outcome(action, self._stem, subject)
            self.post_message(Done(action, subject, done, text))

        threading.Thread(target=perform, name=f"stem_iso: top, {action.word}", daemon=True).start()

    def on_done(self, message: Done) -> None:
        if not message.action.reads:
            self._reader.soon()
        if message.done and message.action.reads:
            self._news = 0.0, []
            self._tick()
            self.push_screen(Reading(message.action.question(message.subject), message.text, self._palette))
        else:
            self._say(f"{'done' if message.done else 'not done'}: {message.text}", Tone.GOOD if message.done else Tone.BAD)


def _source(name: str, snapshot: Snapshot) -> object:
    """What a pane is made of, so far as it does not change with the time alone. Of queues the moment of their reading says it."""
    return {QUEUES: snapshot.queues_at, TIME_OUTS: snapshot.time_outs, FAILURES: snapshot.failures}[name]


def run(stem: Stem, reader: Reader, place: str, palette: Palette) -> int:
    """The exit code."""
    code = Top(stem, reader, place, palette).run()
    return INTERRUPTED if code is None else code
