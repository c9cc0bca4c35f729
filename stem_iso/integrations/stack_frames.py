"""Stack frames out of text: of a traceback, or of the stack that a killed handler left. Nothing of ours or of an SDK is needed to read one.

Stack (most recent call last):                     Traceback (most recent call last):
  File "/srv/shop/tasks.py", line 7 in crunch        File "/srv/shop/tasks.py", line 7, in crunch
"""

from __future__ import annotations

import re
from typing import NamedTuple

FRAME = re.compile(r'^\s*File "(?P<file>.*)", line (?P<line>\d+|\?\?\?),? in (?P<name>.*)$')
HEAD = re.compile(r"^.*\(most recent call last\):$", re.MULTILINE)


class StackFrame(NamedTuple):
    """`line` is None where the interpreter could not tell it."""

    file: str
    line: int | None
    function: str


def stack_frames(text: str) -> list[StackFrame]:
    """The innermost last; of several tracebacks that led to each other, those of the last. Empty where there are none."""
    last = HEAD.split(text)[-1]
    found = (FRAME.match(line) for line in last.splitlines())
    return [StackFrame(each["file"], int(each["line"]) if each["line"].isdigit() else None, each["name"]) for each in found if each]
