"""Background of the terminal: dark or light.

    COLORFGBG says it ──> taken
    else: OSC 11 ?, then DA1 ──> the answers ── parse ──> the colour; a terminal that does not know the first answers the second at once

https://invisible-island.net/xterm/ctlseqs/ctlseqs.html: OSC 11 with "?" asks for the background, CSI c for the kind of terminal, which each
of them answers. So nobody waits for the time-out but on what is no terminal at all.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Mapping

from stem_iso.cli.top.theme import DARK, LIGHT, Palette, luminance

ASK = b"\x1b]11;?\x1b\\\x1b[c"
LONGEST = 1.0  # seconds: a slow line; what comes later would be taken for keys
LAST = re.compile(rb"\x1b\[\?[\d;]*c")
COLOUR = re.compile(rb"\x1b\]11;rgba?:([0-9a-fA-F]{1,4})/([0-9a-fA-F]{1,4})/([0-9a-fA-F]{1,4})")


def palette(environ: Mapping[str, str], input: int, output: int) -> Palette:
    """For the terminal of these two descriptors. What cannot be found out is dark, as most are."""
    named = of_variable(environ.get("COLORFGBG", ""))
    return named or of_answer(_asked(input, output)) or DARK


def of_variable(value: str) -> Palette | None:
    """`15;0`, `0;default;15`: the last is the background, of the sixteen colours; 7 and from 9 on they are light."""
    last = value.rpartition(";")[2]
    if not last.isdecimal() or ";" not in value:
        return None
    return LIGHT if int(last) == 7 or int(last) > 8 else DARK


def of_answer(answer: bytes) -> Palette | None:
    found = COLOUR.search(answer)
    if found is None:
        return None
    parts = [int(part, 16) * 255 // (16 ** len(part) - 1) for part in found.groups()]
    return LIGHT if luminance("#" + "".join(f"{part:02x}" for part in parts)) > 0.18 else DARK  # the grey in the middle


def _asked(input: int, output: int) -> bytes:
    import termios
    import tty

    try:
        before = termios.tcgetattr(input)
        tty.setcbreak(input)
    except (termios.error, OSError):
        return b""
    try:
        os.write(output, ASK)
        return _read(input, time.monotonic() + LONGEST)
    except OSError:
        return b""
    finally:
        termios.tcsetattr(input, termios.TCSADRAIN, before)


def _read(input: int, until: float) -> bytes:
    answer = b""
    while not LAST.search(answer) and (left := until - time.monotonic()) > 0:
        ready, _, _ = select.select([input], [], [], left)
        if ready:
            part = os.read(input, 256)
            if not part:
                break
            answer += part
    return answer
