"""Frames on the pipe between the core and an isolate. Pure.

    | magic 1 | kind 1 | size 4 | number 8 | payload (size bytes) |      little endian

    core -> isolate    ADOPT   msgpack of Boot             once, before any user code may run
                       CALL    pack_call(...)              `number` is the call's
                       ANSWER  bytes                       `number` is the call's: one question of a call at a time
    isolate -> core    READY   bytes                       what the runner says of itself
                       BROKEN  text                        the boot failed: its traceback
                       REPLY   tag, leftovers, bytes       `number` is the call's; leftovers as in `child.leftovers`
                       REQUEST, SEND, BEAT, LOG    what the handler says meanwhile

    the inline host, which runs many calls at a time: the same, its CALL packed by pack_hosted(...), and

    core -> host       STOP    reason                      cancel the coroutine of this call
                       PING                                is the loop alive? `number` comes back in PONG
    host -> core       BEGUN   thread id 4                 where this call runs
                       PRINT   stream, bytes               what it printed, cut at line ends
                       LIMIT   level, elapsed 8, stack     a limit was reached: level 0 soft, 1 hard, 2 silence
                       PONG
                       UNBEGUN                             this call came too late: it was being taken back

Rules
 1. Any cut of the bytes unframes to the same messages.
 2. Bytes that are no frame raise `Garbage` at the first header that cannot be one: a handler may write to every descriptor it finds, and
    the magic byte, the kind and the size are what distinguishes its bytes from ours.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import msgspec

from stem_iso.text import cut, encoded

MAGIC = 0xA5
ADOPT, CALL, ANSWER, READY, BROKEN, REPLY, REQUEST, SEND, BEAT, LOG, STOP, PING, BEGUN, PRINT, LIMIT, PONG, UNBEGUN = range(1, 18)
HEADER = struct.Struct("<BBIQ")
LARGEST = 1 << 31  # what a size may say: beyond it is garbage; of an isolate's frames less, as `Boot.largest_frame` says
MOST_LOGGED = 1 << 20  # bytes of one record
LOG_HEAD = struct.Struct("<BBI")  # level, bytes of the logger's name, of the details

# entry, raise at soft limit, soft and hard deadline (inf: none), length of definition and of title, how many cores
CALL_HEAD = struct.Struct("<IBddIIH")
CALL_HEADS = struct.Struct(HEADER.format + CALL_HEAD.format[1:])  # both heads of a CALL at once
HOSTED_HEAD = struct.Struct("<dd")  # when the call was sent, the longest silence (inf: none)
THREAD = struct.Struct("<I")
LIMIT_HEAD = struct.Struct("<Bd")
SOFT_LIMIT, HARD_LIMIT, SILENCE = 0, 1, 2


class Garbage(ValueError):
    """These bytes are no frame, or a frame that means nothing."""


# What decoding the bytes of a stranger can raise: besides msgspec's own errors, text that is none, nesting without end, sizes that no
# machine has, numbers that no clock has.
UNREADABLE = (msgspec.MsgspecError, ValueError, TypeError, RecursionError, MemoryError, OverflowError)


class Frame(NamedTuple):
    kind: int
    number: int
    payload: bytes


def frame(kind: int, number: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(MAGIC, kind, len(payload), number) + payload


class Unframer:
    """Turns a stream of bytes, cut anywhere, back into frames. Owned by whoever reads the pipe."""

    __slots__ = ("_buffer", "_largest", "_need")

    def __init__(self, largest: int = LARGEST) -> None:
        self._largest = largest
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
            if magic != MAGIC or not ADOPT <= kind <= UNBEGUN or size > self._largest:
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
    rest = _call_rest(call)
    lengths = len(rest[0]), len(rest[1]), len(call.cpus)
    return b"".join((CALL_HEAD.pack(call.entry, call.raises, call.soft_deadline, call.hard_deadline, *lengths), *rest))


def call_frame(number: int, call: CallFrame) -> bytes:
    """`frame(CALL, number, pack_call(call))`, in one step: each call pays for it."""
    rest = _call_rest(call)
    definition, title, cpus, payload = rest
    size = CALL_HEAD.size + len(definition) + len(title) + len(cpus) + len(payload)
    entry, raises, soft, hard, *_ = call
    lengths = len(definition), len(title), len(call.cpus)
    return b"".join((CALL_HEADS.pack(MAGIC, CALL, size, number, entry, raises, soft, hard, *lengths), *rest))


def _call_rest(call: CallFrame) -> tuple[bytes, bytes, bytes, bytes]:
    cpus = struct.pack(f"<{len(call.cpus)}H", *call.cpus) if call.cpus else b""
    return call.definition, call.title.encode(errors="replace"), cpus, call.payload  # the title may be any text: a function's name


def unpack_call(data: bytes) -> CallFrame:
    entry, raises, soft, hard, definition, title, cores = CALL_HEAD.unpack_from(data)
    at = CALL_HEAD.size
    titled = at + definition
    pinned = titled + title
    end = pinned + 2 * cores
    cpus = struct.unpack_from(f"<{cores}H", data, pinned) if cores else ()
    return CallFrame(entry, bool(raises), soft, hard, data[at:titled], data[titled:pinned].decode(), cpus, data[end:])


def pack_hosted(sent_at: float, heartbeat: float, call: CallFrame) -> bytes:
    """Where many calls share a process, its own clock watches them: it needs their start, and the silence that is allowed."""
    return HOSTED_HEAD.pack(sent_at, heartbeat) + pack_call(call)


def unpack_hosted(data: bytes) -> tuple[float, float, CallFrame]:
    sent_at, heartbeat = HOSTED_HEAD.unpack_from(data)
    return sent_at, heartbeat, unpack_call(data[HOSTED_HEAD.size :])


def pack_log(level: int, logger: str, text: str, details: bytes = b"") -> bytes:
    """Any text: what UTF-8 cannot carry is replaced; of the logger's name 255 bytes are kept, of the text what a call may print.

    `details`: packed `log_record.RecordDetails`, or nothing.
    """
    name = logger.encode(errors="replace")[:255]
    return LOG_HEAD.pack(min(level, 255) & 0xFF, len(name), len(details)) + name + details + encoded(cut(text, MOST_LOGGED))


def log_record(payload: bytes) -> tuple[int, str, bytes, bytes]:
    """Level, logger, text and details of a LOG. Raises Garbage."""
    if len(payload) < LOG_HEAD.size:
        raise Garbage("a log record that is none")
    level, name, details = LOG_HEAD.unpack_from(payload)
    text = LOG_HEAD.size + name + details
    if len(payload) < text:
        raise Garbage("a log record that is none")
    logger = payload[LOG_HEAD.size : LOG_HEAD.size + name].decode(errors="replace")
    return level, logger, payload[text:], payload[LOG_HEAD.size + name : text]
