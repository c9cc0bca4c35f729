"""The captured output of a handler: what it prints and logs, cut at line ends, with a cap per call. Pure.

    feed (printed) · log (logged) ──> lines ──> the caller          finish, at the call's end ──> what had no newline, what was too much

Lines go on in blocks: a million empty lines are one mebibyte, but passed on one by one they would hold up every limit for seconds.
"""

from __future__ import annotations

import logging
from collections import deque

CAP = 1 << 20  # bytes a call, printed and logged together; the rest is dropped and counted
TAIL = 20  # lines of stderr that a crash report shows
BLOCK = 500  # lines that are passed on together, at most
LONGEST = 1 << 13  # a line without an end is cut here, so that a flood without newlines comes out too

STDOUT, STDERR = "stdout", "stderr"

# Level, logger (a stream's name where it was printed), text of one or several lines, details of a record (`log_record`).
Line = tuple[int, str, str, bytes]


class CapturedOutput:
    """The printed text of one isolate, call by call. Owned by the engine's thread."""

    __slots__ = ("_partial", "_room", "dropped", "tail")

    def __init__(self) -> None:
        self._partial = {STDOUT: b"", STDERR: b""}
        self._room = CAP
        self.dropped = 0
        self.tail: deque[str] = deque(maxlen=TAIL)

    def log(self, level: int, logger: str, text: bytes, details: bytes = b"") -> list[Line]:
        """A record of `logging`, cut where there is no more room: its details go first."""
        whole = len(text) + len(details)
        room = self._take(whole)
        return [(level, logger, text[:room].decode(errors="replace"), details if room == whole else b"")] if room else []

    def feed(self, stream: str, data: bytes) -> list[Line]:
        """The lines that are complete now, in blocks."""
        kept = self._partial[stream] + data[: self._take(len(data))]
        *lines, rest = kept.split(b"\n")
        if len(rest) > LONGEST:
            lines, rest = [*lines, rest], b""
        self._partial[stream] = rest
        return self._readable(stream, lines)

    def finish(self) -> list[Line]:
        """The call has ended: what had no newline, and how much was too much. Then everything starts anew but `tail` and the room."""
        rest: list[Line] = []
        if self._partial[STDOUT] or self._partial[STDERR]:
            rest = [line for stream, data in self._partial.items() if data for line in self._readable(stream, [data])]
            self._partial = {STDOUT: b"", STDERR: b""}
        if self.dropped:
            rest.append((logging.WARNING, "stem_iso", f"{self.dropped} bytes of output dropped beyond the first MiB", b""))
        return rest

    def reset(self) -> None:
        """A new call: its own room, its own tail."""
        self.renew()
        self.tail.clear()

    def renew(self) -> None:
        """Room as for a new call; the tail goes on, where it is the process's."""
        self._room, self.dropped = CAP, 0

    def _take(self, size: int) -> int:
        """How many of `size` bytes there is room for; the others count as dropped."""
        taken = min(size, self._room)
        self._room -= taken
        self.dropped += size - taken
        return taken

    def _readable(self, stream: str, lines: list[bytes]) -> list[Line]:
        if stream == STDERR:
            self.tail.extend(map(_decoded, lines[-TAIL:]))
        return [(logging.INFO, stream, _decoded(b"\n".join(lines[at : at + BLOCK])), b"") for at in range(0, len(lines), BLOCK)]


def _decoded(lines: bytes) -> str:
    text = lines.decode(errors="replace")
    return "\n".join(line.rstrip("\r") for line in text.split("\n")) if "\r" in text else text
