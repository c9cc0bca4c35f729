"""Frames of a stack or a traceback, for the viewer: where, in which function, its line of code, and whose code it is.

    File "/srv/shop/tasks.py", line 12 in make ──> ShownFrame("/srv/shop/", "tasks.py:12", "make", "", library=False)

Pure. It takes what Python's tracebacks and faulthandler's dumps look like. A text that is neither has no frames: it is shown as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FRAME = re.compile(r'^\s*File "([^"\n]{1,1000})", line (\d{1,9}),? in ([^\n]{1,300})$')
LIBRARY = re.compile(r"/site-packages/|/dist-packages/|/lib/python\d|^<frozen |/stem_iso/")
MOST_FRAMES = 400


@dataclass(frozen=True, slots=True)
class ShownFrame:
    """`library`: not of the application's own code."""

    folder: str
    file: str
    function: str
    code: str
    library: bool


@dataclass(frozen=True, slots=True)
class ShownStack:
    """`frames`: outermost first, as Python writes a traceback. `rest`: lines that are no frames, such as the exception itself."""

    frames: list[ShownFrame]
    rest: str
    left_out: int = 0


def parsed(text: str) -> ShownStack:
    frames: list[ShownFrame] = []
    rest: list[str] = []
    for line in text.splitlines():
        if found := FRAME.match(line):
            folder, slash, name = found[1].rpartition("/")
            frames.append(ShownFrame(folder + slash, f"{name}:{found[2]}", found[3].strip(), "", bool(LIBRARY.search(found[1]))))
        elif frames and not rest and line.startswith("    ") and not frames[-1].code:
            frames[-1] = ShownFrame(frames[-1].folder, frames[-1].file, frames[-1].function, line.strip(), frames[-1].library)
        elif not frames and line.startswith(("Traceback (", "Stack (", "Current thread", "Thread 0x")):
            continue
        elif not set(line.strip()) <= set("^~ "):  # marks below a line of code say nothing without its columns
            rest.append(line)
    if "most recent call first" in text:
        frames.reverse()
    return ShownStack(frames[-MOST_FRAMES:], "\n".join(rest).strip(), max(0, len(frames) - MOST_FRAMES))
