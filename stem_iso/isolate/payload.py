"""Payloads: pickled values as bytes for the pipe, and large ones in a memfd beside it. Both sides of a pool use them.

    value ── pickle, protocol 5 ──> chunks, buffers ──┬─ small ──> data: pickle · kind
                                                      └─ large ──> data: table · length · kind      memfd: [pickle] [buffer] ...
                                                             (behind a pickle in the data: its table of `__main__`, and the table's length)
    data, memory ── unpack ──> value                                a section starts every 64 bytes; the table says where, how long,
                                                                    and whether its owner could write to it

Rules
 1. Plain pickle first. cloudpickle carries what plain pickle cannot find by name, and what it would name as `__main__`, which is another
    module in every process. To an isolate (`by_name`) `__main__` goes in units of its own, in a table behind the pickle (`main_module`).
 2. From LARGE on a buffer (and the pickle itself) goes into a memfd: one for each payload, written once, sealed against shrinking, mapped
    by who receives it. A view is valid for as long as somebody refers to it, because nobody ever writes to that memfd again.
 3. A view is writable where the sender's buffer was, read-only where it was not, so that an array comes back as one that can be written to.
    Plain `bytes` are copied out, as they must be.
 4. A received memfd without the seal is refused: whoever could shrink it could kill its reader (SIGBUS).
 5. The kind stands last, because pickle stops at its own STOP: no byte is moved to read what is in front of it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import pickle
import struct
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import msgspec

from stem_iso.isolate import main_module
from stem_iso.isolate.linux import F_ADD_SEALS, F_GET_SEALS, F_SEAL_GROW, F_SEAL_SHRINK, MAP_NORESERVE, map_over

LARGE = 256 << 10  # bytes: below it a memfd costs more than the copies through the pipe that it saves
OUTSIDE, RAISED, NAMED = 1, 2, 4  # bits of the kind
ALIGNED = 64
MOST_SECTIONS = 512  # at a time to writev, which takes 1024 pieces at most; each may need one that fills up

_SECTION, _COUNT, _LENGTH = struct.Struct("<QQB"), struct.Struct("<IB"), struct.Struct("<Q")
_MAIN = b"__main__"
_FILL = bytes(ALIGNED)
_ENDS = bytes((0,)), bytes((RAISED,))  # of what is neither large nor in need of a table
_PLAIN = frozenset({bytes, bytearray, str})


class Parcel(msgspec.Struct, frozen=True):
    """What goes over the pipe, and the memfd that goes with it: whoever sends it closes it."""

    data: bytes
    descriptor: int | None = None


class UnreadablePayload(Exception):
    """Bytes that are no payload, or came without their memory."""


class _Sink:
    """A file for a pickler, which hands it large objects as they are, uncopied."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[Any], object]) -> None:
        self.write = write


def pack(value: object, raised: bool = False, outside: bool = True, bulky: bool = False, by_name: bool = False) -> Parcel:
    """Raises what pickling raises, and OSError where there is no memory for what is large.

    `outside=False`: all in the data. `bulky`: there is something in it that `is_bulk`, which is then not copied into a pickle first.
    `by_name`: it goes to an isolate, whose `__main__` is a namespace of its own.
    """
    chunks, buffers, table = _pickled(value, outside, bulky, by_name)
    if not buffers and not table and len(chunks) == 1 and len(chunks[0]) < LARGE:  # nearly all
        return Parcel(b"".join((chunks[0], _ENDS[raised])))
    size = len(chunks[0]) if len(chunks) == 1 else sum(memoryview(chunk).nbytes for chunk in chunks)
    kind = raised * RAISED
    tail = b""
    if table:
        kind |= NAMED
        tail = table + _LENGTH.pack(len(table))
    if not outside or (size < LARGE and not buffers):
        return Parcel(b"".join((*chunks, tail, bytes((kind,)))))
    return _outside(chunks, size, buffers, tail, kind)


def is_bulk(value: object) -> bool:
    """Plain data that is large by itself."""
    return type(value) in _PLAIN and len(value) >= LARGE  # type: ignore[arg-type]


def unpack(data: bytes, memory: memoryview | None = None) -> Any:
    """The value. `memory` is what `mapped` made of the descriptor that came with it. Raises what unpickling raises, UnreadablePayload."""
    kind = data[-1] if data else 0
    if kind & NAMED:
        end = len(data) - (_COUNT.size if kind & OUTSIDE else 1) - _LENGTH.size
        main_module.settle(data[end - _LENGTH.unpack_from(data, end)[0] : end])
    if not kind & OUTSIDE:
        return pickle.loads(data)
    if memory is None:
        raise UnreadablePayload("its memory did not come with it: no descriptor was free")
    count = _COUNT.unpack_from(data, len(data) - _COUNT.size)[0]
    views = []
    for offset, size, writable in _SECTION.iter_unpack(data[: count * _SECTION.size]):
        view = memory[offset : offset + size]
        views.append(view if writable else view.toreadonly())
    return pickle.loads(views[0], buffers=views[1:])


def raised(data: bytes) -> bool:
    """Whether it is an error that was packed."""
    return bool(data) and bool(data[-1] & RAISED)


def mapped(descriptor: int) -> memoryview:
    """The memory behind a descriptor that came, which is closed. Raises UnreadablePayload, OSError."""
    try:
        seals = fcntl.fcntl(descriptor, F_GET_SEALS)
        size = os.fstat(descriptor).st_size
        if not seals & F_SEAL_SHRINK or not size:
            raise UnreadablePayload("its memory is not sealed")
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE, prot=protection)
        map_over(block, descriptor)
    finally:
        os.close(descriptor)
    return memoryview(block)


# -- pickling --------------------------------------------------------------------------------------------------------------------------


def _pickled(value: object, outside: bool, bulky: bool, by_name: bool) -> tuple[list[Any], list[memoryview], bytes]:
    try:
        if bulky:
            chunks, buffers = _run(pickle.Pickler, value, outside)[:2]
        else:  # a pickler that writes to a file hands large objects over uncopied, and takes 3 µs more for small ones
            buffers = []
            chunks = [pickle.dumps(value, 5, buffer_callback=_in_band(buffers, outside))]
            if _MAIN not in chunks[0]:
                return chunks, buffers, b""
    except Exception:  # a lambda, a closure, a class made in a function; or what cloudpickle cannot carry either, and says why
        return _by_value(value, outside, by_name)
    for chunk in chunks:
        # What is as large as this was handed over raw: text or bytes of the user's, no name.
        if (len(chunks) == 1 or memoryview(chunk).nbytes < LARGE) and _MAIN in bytes(chunk):
            return _by_value(value, outside, by_name)
    return chunks, buffers, b""


def _by_value(value: object, outside: bool, by_name: bool) -> tuple[list[Any], list[memoryview], bytes]:
    if by_name:
        chunks, buffers, used = _run(main_module.pickler(), value, outside)
        names = used.met | used.used
        return chunks, buffers, main_module.table_of(names) if names else b""
    import cloudpickle  # 10 ms, where nothing else has needed it

    return *_run(cloudpickle.Pickler, value, outside)[:2], b""


def _run(pickler: Any, value: object, outside: bool) -> tuple[list[Any], list[memoryview], Any]:
    chunks: list[Any] = []
    buffers: list[memoryview] = []
    used = pickler(_Sink(chunks.append), 5, buffer_callback=_in_band(buffers, outside))
    used.dump(value)
    return chunks, buffers, used


def _in_band(buffers: list[memoryview], outside: bool) -> Callable[[pickle.PickleBuffer], bool]:
    """The picklers' question about each buffer: is it part of the pickle?"""

    def in_band(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if not outside or view.nbytes < LARGE:
            return True
        buffers.append(view)
        return False

    return in_band


# -- memory ----------------------------------------------------------------------------------------------------------------------------


def _outside(chunks: list[Any], size: int, buffers: list[memoryview], tail: bytes, kind: int) -> Parcel:
    sizes = [size, *(view.nbytes for view in buffers)]
    offsets = accumulate((each + -each % ALIGNED for each in sizes[:-1]), initial=0)
    writable = (False, *(not view.readonly for view in buffers))
    table = b"".join(map(_SECTION.pack, offsets, sizes, writable))
    pieces: list[Any] = [*chunks, _FILL[: -size % ALIGNED]]
    for view in buffers:
        pieces += (view, _FILL[: -view.nbytes % ALIGNED])
    return Parcel(table + tail + _COUNT.pack(len(sizes), kind | OUTSIDE), _memory_of(pieces))


def _memory_of(pieces: list[Any]) -> int:
    """A sealed memfd that holds these."""
    descriptor = os.memfd_create("stem_iso-parcel", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        left = [view for view in map(_flat, pieces) if view.nbytes]
        while left:
            written = os.writev(descriptor, left[:MOST_SECTIONS])
            while left and written >= left[0].nbytes:
                written -= left.pop(0).nbytes
            if written:
                left[0] = left[0][written:]
        fcntl.fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)
    except BaseException:  # Ctrl-C too: nobody else knows the descriptor
        os.close(descriptor)
        raise
    return descriptor


def _flat(piece: Any) -> memoryview:
    return memoryview(piece).cast("B")
