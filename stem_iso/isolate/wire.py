"""Frames on the pipe between the core and an isolate. Pure.

    | magic 1 | kind 1 | size 4 | number 8 | payload (size bytes) |      little endian

    core -> isolate    ADOPT   msgpack of Boot             once, before any user code may run
                       CALL    pack_call(...)              `number` is the call's
                       ANSWER  bytes                       `number` is the call's: one question of a call at a time
    isolate -> core    READY   bytes                       what the runner says of itself
                       BROKEN  text                        the boot failed: its traceback
                       REPLY   tag, leftovers, bytes       `number` is the call's
                       ASK, TELL, BEAT, LOG                what the handler says meanwhile

Rules
 1. Any cut of the bytes unframes to the same messages.
 2. Bytes that are no frame raise `Garbage` at the first header that cannot be one: a handler may write to every descriptor it finds, and
    the magic byte, the kind and the size are what tell its bytes from ours.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

MAGIC = 0xA5
ADOPT, CALL, ANSWER, READY, BROKEN, REPLY, ASK, TELL, BEAT, LOG = range(1, 11)
HEADER = struct.Struct("<BBIQ")
LARGEST = 1 << 31  # what a size may say: beyond it is garbage

# entry, raise at soft limit, soft and hard deadline (inf: none), length of definition and of title, how many cores
CALL_HEAD = struct.Struct("<IBddIIH")


class Garbage(ValueError):
    """These bytes are no frame."""


class Frame(NamedTuple):
    kind: int
    number: int
    payload: bytes


def frame(kind: int, number: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(MAGIC, kind, len(payload), number) + payload


class Unframer:
    """Turns a stream of bytes, cut anywhere, back into frames. Owned by whoever reads the pipe."""

    __slots__ = ("_buffer", "_need")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._need = HEADER.size  # a large frame is looked at again only when all of it is there: else reading one costs its square

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete now. Raises Garbage."""
        if not self._buffer:
            return self._unframe(data)
        self._buffer += data
        if len(self._buffer) < self._need:
            return []
        whole, self._buffer = bytes(self._buffer), bytearray()
        return self._unframe(whole)

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._buffer)

    def _unframe(self, data: bytes) -> list[Frame]:
        frames: list[Frame] = []
        at, end = 0, len(data)
        while end - at >= HEADER.size:
            magic, kind, size, number = HEADER.unpack_from(data, at)
            if magic != MAGIC or not ADOPT <= kind <= LOG or size > LARGEST:
                raise Garbage(f"not a frame: {data[at : at + 16]!r}")
            body = at + HEADER.size
            if end - body < size:
                self._need = HEADER.size + size
                break
            frames.append(Frame(kind, number, data[body : body + size]))
            at = body + size
        else:
            self._need = HEADER.size
        self._buffer += data[at:]
        return frames


class CallFrame(NamedTuple):
    entry: int
    raises: bool
    soft_deadline: float
    hard_deadline: float
    definition: bytes  # empty where the isolate knows the entry already
    title: str
    cpus: tuple[int, ...]  # the cores that are the call's own; none: it shares
    payload: bytes


def pack_call(call: CallFrame) -> bytes:
    title, cpus = call.title.encode(), call.cpus
    lengths = len(call.definition), len(title), len(cpus)
    head = CALL_HEAD.pack(call.entry, call.raises, call.soft_deadline, call.hard_deadline, *lengths)
    return b"".join((head, call.definition, title, struct.pack(f"<{len(cpus)}H", *cpus) if cpus else b"", call.payload))


def unpack_call(data: bytes) -> CallFrame:
    entry, raises, soft, hard, definition, title, cores = CALL_HEAD.unpack_from(data)
    at = CALL_HEAD.size
    titled = at + definition
    pinned = titled + title
    end = pinned + 2 * cores
    cpus = struct.unpack_from(f"<{cores}H", data, pinned) if cores else ()
    return CallFrame(entry, bool(raises), soft, hard, data[at:titled], data[titled:pinned].decode(), cpus, data[end:])
