"""Style sheet of the full screen, and a palette as a theme of textual."""

from __future__ import annotations

from textual.theme import Theme

from stem_iso.cli.top.grid import Tone
from stem_iso.cli.top.theme import Palette

CSS = """
Screen { background: $background; overflow: hidden; }
#heading { height: 1; }
#totals { height: 1; }
#tabs { height: 1; }
#body { height: 1fr; }
#news { height: 1; display: none; }
#news.shown { display: block; }
#hints { height: 1; }
#filter { height: 1; border: none; padding: 0 1; display: none; background: $panel; color: $foreground; }
#filter.shown { display: block; }
PaneView, TextView { height: 1fr; background: $background; overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1;
  scrollbar-color: $scrollbar; scrollbar-color-hover: $scrollbar; scrollbar-color-active: $scrollbar;
  scrollbar-background: $background; scrollbar-background-hover: $background; scrollbar-background-active: $background; }
.narrow PaneView { display: none; }
.narrow PaneView.current { display: block; }
.narrow #stack { display: none; }
.narrow.on-time-outs #stack, .narrow.on-failures #stack { display: block; }
.large #tabs { display: none; }
.large #body { layout: grid; grid-size: 2; grid-rows: 5fr 4fr 4fr; grid-gutter: 0 2; }
.large #isolates { column-span: 2; }
Question, Reading { align: center middle; background: $background 60%; }
#dialog { width: 72; max-width: 96%; height: auto; padding: 1 2; background: $panel; border: round $primary; }
#question { color: $text-strong; text-style: bold; }
#consequence { margin: 1 0; color: $foreground; }
#answers { height: 1; }
#answers Button, #answers Button:hover, #answers Button.-active { border: none; height: 1; }
#answers Button { margin: 0 2 0 0; min-width: 15; background: $background; color: $foreground; text-style: none; }
#answers Button:focus { background: $primary; color: $background; text-style: bold underline; background-tint: $primary 0%; }
Reading > TextView { width: 92%; height: 90%; border: round $primary; padding: 0; }
"""


def theme_of(palette: Palette) -> Theme:
    tones = palette.tones
    return Theme(
        name=palette.name,
        primary=tones[Tone.ACCENT],
        foreground=tones[Tone.PLAIN],
        background=palette.background,
        surface=palette.background,
        panel=palette.bar,
        warning=tones[Tone.WARNING],
        error=tones[Tone.BAD],
        success=tones[Tone.GOOD],
        accent=tones[Tone.ACCENT],
        dark=palette.dark,
        variables=variables(palette),
    )


def variables(palette: Palette) -> dict[str, str]:
    """What the style sheet names besides the colours of every theme."""
    return {"scrollbar": palette.rule, "text-strong": palette.tones[Tone.STRONG]}
