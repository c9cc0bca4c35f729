"""RESP2 answers, out of bytes as they come: for a connection that waits for a readable descriptor and not for an answer. (Pure.)"""

from __future__ import annotations

from typing import Any

from stem_iso.brokers.redis.refusals import Refusal

END = b"\r\n"


class Unfinished(Exception):
    """The rest of the answer has not arrived."""


class Answers:
    """Feed it bytes; take whole answers: bytes, int, None, lists of these, Refusal."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """Those that are whole now. Raises ValueError for what is no RESP2."""
        self._bytes += data
        found: list[Any] = []
        start = 0
        while start < len(self._bytes):
            try:
                answer, start = self._one(start)
            except Unfinished:
                break
            found.append(answer)
        del self._bytes[:start]
        return found

    def _one(self, start: int) -> tuple[Any, int]:
        stop = self._bytes.find(END, start)
        if stop < 0:
            raise Unfinished
        kind, text, after = self._bytes[start : start + 1], bytes(self._bytes[start + 1 : stop]), stop + 2
        if kind == b"+":
            return text, after
        if kind == b"-":
            return Refusal.of(text.decode(errors="replace")), after
        number = int(text)
        if kind == b":":
            return number, after
        if kind == b"$":
            return self._bulk(number, after)
        if kind == b"*":
            return self._array(number, after)
        raise ValueError(f"{bytes(kind)!r} begins no answer of RESP2")

    def _bulk(self, length: int, start: int) -> tuple[bytes | None, int]:
        if length < 0:
            return None, start
        if len(self._bytes) < start + length + 2:
            raise Unfinished
        return bytes(self._bytes[start : start + length]), start + length + 2

    def _array(self, count: int, start: int) -> tuple[list[Any] | None, int]:
        if count < 0:
            return None, start
        found: list[Any] = []
        for _ in range(count):
            each, start = self._one(start)
            found.append(each)
        return found, start
