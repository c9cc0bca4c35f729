"""Tail of what an attempt prints and logs, for the error of one that fails.

    lines on their way to the worker's log ── add ──> the newest LINES ── attempt failed ──> text ──> TaskError.output
                                                                      └─ it succeeded ──> dropped with the attempt

A line costs one append and, where it is long, one copy of its end.
"""

from __future__ import annotations

import logging
from collections import deque

from stem_iso.text import encoded

LINES = 20
BYTES = 2048
PRINTED = ("stdout", "stderr")


class OutputTail:
    """Added to by the runner's thread, read by the consumer's when the attempt has ended."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: deque[tuple[int, str, str]] = deque(maxlen=LINES)

    def add(self, level: int, logger: str, text: str) -> None:
        """`text`: one line or several."""
        self._kept.append((level, logger, text[-BYTES:]))

    def text(self) -> str:
        """The newest whole lines, LINES at most, of BYTES in all. One that is alone longer than that has lost its begin."""
        written = "\n".join(_line(*each) for each in tuple(self._kept))
        whole = encoded("\n".join(written.rstrip().split("\n")[-LINES:]))
        kept = whole[-BYTES:].decode("utf-8", "ignore")
        return kept.partition("\n")[2] or kept if len(whole) > BYTES else kept


def _line(level: int, logger: str, text: str) -> str:
    return text if logger in PRINTED else f"{logging.getLevelName(level)} {logger}: {text}"
