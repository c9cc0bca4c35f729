"""What faulthandler writes, made readable. Pure.

faulthandler writes the innermost frame first, and every frame of ours below the handler's; people read a traceback with the innermost last,
and care for their own code.
"""

from __future__ import annotations

import re

FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<name>.*)$')
HEAD = re.compile(r"\(most recent call first\):$", re.MULTILINE)
PROGRAM = '  File "<string>", line 1 in <module>'  # the outermost frame of each process, a `python -c`
OURS = (
    "/stem_iso/isolate/child/",
    "/stem_iso/worker/child/",
    "/stem_iso/worker/inline/",
    "/loky/backend/",
    "/multiprocessing/process.py",
    "<frozen runpy>",
    "/stem_iso/task/",
)


def readable(dumps: str) -> str:
    """The frames of the handler in the last of the dumps that has any, innermost last; empty where none has (a handler can write to this
    pipe)."""
    for dump in reversed(HEAD.split(dumps)):
        if frames := [line for line in dump.splitlines() if FRAME.match(line)]:
            break
    else:
        return ""
    inside = frames[:-1] if frames[-1] == PROGRAM else frames
    kept = [line for line in inside if not any(part in line for part in OURS)] or frames
    return "\n".join(["Stack (most recent call last):", *reversed(kept)])


def complete(dump: str) -> bool:
    """Whether this can be the whole of a dump: it ends with a line's end, after at least one frame."""
    return dump.endswith("\n") and "\n  File " in dump
