"""Colours of the full screen, for dark and for light terminals. Pure.

Every tone is told from both backgrounds, the plain one and that of the chosen row, by a contrast of at least 4.5 (WCAG 2.1, 1.4.3).
"""

from __future__ import annotations

from dataclasses import dataclass

from stem_iso.cli.top.grid import Tone


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours as `#rrggbb`. `chosen` lies behind the row of the cursor, `bar` behind the first and the last line, `rule` is for lines."""

    name: str
    dark: bool
    background: str
    chosen: str
    bar: str
    rule: str
    tones: dict[Tone, str]


DARK = Palette(
    name="stem-iso-dark",
    dark=True,
    background="#10151b",
    chosen="#243447",
    bar="#1b232d",
    rule="#3a4757",
    tones={
        Tone.PLAIN: "#d3dae2",
        Tone.DIM: "#97a3b1",
        Tone.STRONG: "#f4f7fa",
        Tone.GOOD: "#62cf94",
        Tone.WARNING: "#ecbb5b",
        Tone.BAD: "#ff8a80",
        Tone.ACCENT: "#7cc0ff",
    },
)
LIGHT = Palette(
    name="stem-iso-light",
    dark=False,
    background="#fcfcfb",
    chosen="#d9e8f8",
    bar="#eceff2",
    rule="#b4bec9",
    tones={
        Tone.PLAIN: "#26303a",
        Tone.DIM: "#55616e",
        Tone.STRONG: "#0a0f14",
        Tone.GOOD: "#146c3a",
        Tone.WARNING: "#7d5100",
        Tone.BAD: "#b3261e",
        Tone.ACCENT: "#0b569f",
    },
)


def contrast(one: str, other: str) -> float:
    """Of two colours, 1 to 21, by WCAG 2.1: (L1 + 0.05) / (L2 + 0.05) of their relative luminances."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    """0 (black) to 1 (white)."""
    red, green, blue = (_linear(int(colour[place : place + 2], 16) / 255) for place in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else float(((part + 0.055) / 1.055) ** 2.4)
