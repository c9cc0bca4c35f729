"""Runner of a pool's functions inside an isolate: functions and arguments in, results and errors out.

    boot(payload) ── modules imported, initializer called ──> FunctionRunner
    CALL ── unpack ──> function(*args, **kwargs) ── pack ──> REPLY

For the runtime a call that could be answered at all has succeeded; whether the function returned or raised is a bit in the reply's last
byte (`payload.RAISED`), which the program's side reads without unpickling the rest.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import msgspec

from stem_iso.isolate import payload as payloads
from stem_iso.isolate.child.fork import ForkedChildGuard
from stem_iso.isolate.interfaces import SUCCEEDED, IsolatePort
from stem_iso.isolate.remote_errors import Described, describe, text_of


class PoolStart(msgspec.Struct, frozen=True):
    """`initializer` is a packed (function, arguments), empty where there is none."""

    preload: tuple[str, ...] = ()
    initializer: bytes = b""


class FunctionPlace(msgspec.Struct, frozen=True):
    """Where a function stands. `path` is the program's search path by then: it may have grown since this process was started."""

    module: str
    name: str
    path: tuple[str, ...] = ()


MOST_FAILED = 32 << 20  # bytes of an error, its causes and members: of a larger one the text alone travels
LARGEST_FRAME = MOST_FAILED + (1 << 20)  # nothing else that a pool's isolate sends is as large: results go into memory beside the pipe
CARRIED = b"carried"  # the definition of the one entry whose calls bring their function with them


class Missing:
    """A function that is not to be found here: what every call of it raises."""

    def __init__(self, error: BaseException) -> None:
        self.error, self.frames = error, error.__traceback__


def boot(payload: bytes, port: IsolatePort) -> FunctionRunner:
    """Raises what the user's modules and initializer raise."""
    start = msgspec.msgpack.decode(payload, type=PoolStart)
    for name in start.preload:
        import_module(name)
    if start.initializer:
        function, args = payloads.unpack(start.initializer)
        function(*args)
    return FunctionRunner()


class FunctionRunner:
    """`isolate.interfaces.Runner` for plain functions."""

    ready = b""

    def define(self, definition: bytes) -> object:
        if definition == CARRIED:
            return None
        place = msgspec.msgpack.decode(definition, type=FunctionPlace)
        sys.path += [entry for entry in place.path if entry not in sys.path]
        try:
            found: Any = import_module(place.module)
            for part in place.name.split("."):
                found = getattr(found, part)
        except BaseException as error:  # importing runs user code
            return Missing(error)
        return found

    def run(self, entry: Any, payload: bytes, port: IsolatePort) -> tuple[int, bytes]:
        try:
            value = _call(entry, payload, port)
            packed = payloads.pack(value, bulky=payloads.is_bulk(value))
        except BaseException as error:  # user code may raise anything, SystemExit included
            packed = _failure(error)
        if packed.descriptor is not None:
            port.attach(packed.descriptor)
        return SUCCEEDED, packed.data


def _call(entry: Any, payload: bytes, port: IsolatePort) -> Any:
    memory = None
    if port.descriptor is not None:
        descriptor, port.descriptor = port.descriptor, None
        memory = payloads.mapped(descriptor)
    if entry is None:
        entry, args, kwargs = payloads.unpack(payload, memory)
    else:
        args, kwargs = payloads.unpack(payload, memory)
    if type(entry) is Missing:
        raise entry.error.with_traceback(entry.frames)  # anew, or each call would add its frames
    with port.armed(), ForkedChildGuard():
        return entry(*args, **kwargs)


def _failure(error: BaseException) -> payloads.Parcel:
    description, text = described(error)
    packed = payloads.pack((description, text), raised=True, outside=False)
    if len(packed.data) > MOST_FAILED:  # a group of hundreds, each with a megabyte of its own
        packed = payloads.pack((Described(description.type, description.message, None, (), None, ()), text), raised=True, outside=False)
    return packed


def run_chunk(function: Any, chunk: list[tuple[Any, ...]]) -> list[tuple[bool, Any]]:
    """Several items of a `map` as one call: (False, result) or (True, described error) of each."""
    return [_one(function, args) for args in chunk]


def _one(function: Any, args: tuple[Any, ...]) -> tuple[bool, Any]:
    try:
        return False, function(*args)
    except Exception as error:  # user code; what is no Exception ends the whole chunk, as a limit does
        return True, described(error)


def described(error: BaseException) -> tuple[Described, str]:
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__") == __name__ and frames.tb_next is not None:
        frames = frames.tb_next
    return describe(error), text_of(error, frames)
