"""The captured output of a handler: what it prints, cut at line ends, with a cap per call. Pure.

Lines go on in blocks: a million empty lines are one mebibyte, but passed on one by one they would hold up every limit for seconds.
"""

from __future__ import annotations

from collections import deque

CAP = 1 << 20  # bytes a call, printed and logged together; the rest is dropped and counted
TAIL = 20  # lines of stderr that a crash report shows
BLOCK = 500  # lines that are passed on together, at most
LONGEST = 1 << 13  # a line without an end is cut here, so that a flood without newlines comes out too

STDOUT, STDERR = "stdout", "stderr"


class CapturedOutput:
    """The printed text of one isolate, call by call. Owned by the engine's thread."""

    __slots__ = ("_partial", "_room", "dropped", "tail")

    def __init__(self) -> None:
        self._partial = {STDOUT: b"", STDERR: b""}
        self._room = CAP
        self.dropped = 0
        self.tail: deque[str] = deque(maxlen=TAIL)

    def take(self, size: int) -> int:
        """How many of `size` bytes there is room for; the others count as dropped."""
        taken = min(size, self._room)
        self._room -= taken
        self.dropped += size - taken
        return taken

    def feed(self, stream: str, data: bytes) -> list[str]:
        """The lines that are complete now, in blocks with newlines between."""
        kept = self._partial[stream] + data[: self.take(len(data))]
        *lines, rest = kept.split(b"\n")
        if len(rest) > LONGEST:
            lines, rest = [*lines, rest], b""
        self._partial[stream] = rest
        return self._readable(stream, lines)

    def finish(self) -> list[tuple[str, str]]:
        """The call has ended: (stream, text) of what had no newline; then everything starts anew but `tail`."""
        if not self._partial[STDOUT] and not self._partial[STDERR]:
            return []
        rest = [(stream, text) for stream, data in self._partial.items() if data for text in self._readable(stream, [data])]
        self._partial = {STDOUT: b"", STDERR: b""}
        return rest

    def reset(self) -> None:
        """A new call: its own room, its own tail."""
        self.renew()
        self.tail.clear()

    def renew(self) -> None:
        """Room as for a new call; the tail goes on, where it is the process's."""
        self._room, self.dropped = CAP, 0

    def _readable(self, stream: str, lines: list[bytes]) -> list[str]:
        if stream == STDERR:
            self.tail.extend(map(_decoded, lines[-TAIL:]))
        return [_decoded(b"\n".join(lines[at : at + BLOCK])) for at in range(0, len(lines), BLOCK)]


def _decoded(lines: bytes) -> str:
    text = lines.decode(errors="replace")
    return "\n".join(line.rstrip("\r") for line in text.split("\n")) if "\r" in text else text
