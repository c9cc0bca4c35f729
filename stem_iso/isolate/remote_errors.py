"""Errors from another process: of the same type, with arguments, notes, causes and group, or, where that cannot be, as text.

    isolate: error ── describe ──> Described(type, message, pickled, notes, cause, members)     each cause and each member the same way
    program: rebuild <──────────── ... and the traceback of the isolate as the last of the causes, as the standard library does

Rules
 1. Pickled is an error that pickle takes, that was loaded again in the isolate, is of the same type there and can say what it is, and is
    no larger than MOST. All others become a `RemoteError` with their text: an odd `__init__`, `__reduce__` or `__str__` is user code.
 2. A group of which a member cannot travel is rebuilt as a plain group of what can.
 3. A circle of causes is cut where it closes.
 4. Nothing here raises: an error that cannot be described is described by its class.
"""

from __future__ import annotations

import pickle
import traceback
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple

from stem_iso.errors import RemoteError, RemoteTraceback
from stem_iso.isolate.payload import pack
from stem_iso.text import cut, cut_inside

MOST = 1 << 20  # bytes of a pickled error
DEEPEST = 50  # links of a chain of causes


class Described(NamedTuple):
    type: str
    message: str
    pickled: bytes | None
    notes: tuple[str, ...]
    cause: Described | None
    members: tuple[Described, ...]


def describe(error: BaseException, seen: frozenset[int] = frozenset()) -> Described:
    seen |= {id(error)}
    cause, members = _cause(error), error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return Described(
        _name(error),
        _message(error),
        _pickled(error),
        _notes(error),
        None if cause is None or id(cause) in seen or len(seen) > DEEPEST else describe(cause, seen),
        tuple(describe(member, seen) for member in members) if len(seen) <= DEEPEST else (),
    )


def text_of(error: BaseException, frames: TracebackType | None) -> str:
    """Its traceback with its causes, from `frames` on."""
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
    except BaseException:  # user code again: any attribute of any link of the chain
        text = "".join(traceback.format_tb(frames)) + f"{_name(error)}: {_message(error)}\n"
    return cut_inside(text)


def rebuild(description: Described, text: str) -> BaseException:
    """The error, its cause, and behind the last one the isolate's traceback."""
    error = _rebuild(description, text)
    last, links = error, 0
    while (cause := last.__cause__) is not None and links <= DEEPEST:
        last, links = cause, links + 1
    if cause is None:
        last.__cause__ = RemoteTraceback(text)
    return error


def _rebuild(description: Described, text: str) -> BaseException:
    error = _loaded(description)
    if error is None:  # not `or`: an error may be false, or raise when it is asked
        error = _stand_in(description, text)
    if not getattr(error, "__notes__", None):
        for note in description.notes:
            error.add_note(note)
    _link(error, description)
    return error


def _loaded(description: Described) -> BaseException | None:
    if description.pickled is None:
        return None
    try:
        error = pickle.loads(description.pickled)
    except Exception:  # its module is missing here
        return None
    return error if isinstance(error, BaseException) else None


def _stand_in(description: Described, text: str) -> BaseException:
    if description.members:
        return BaseExceptionGroup(description.message, [_rebuild(member, "") for member in description.members])
    return RemoteError(description.type, description.message, text)


def _link(error: BaseException, description: Described) -> None:
    """The causes of a group's members are not pickled with them."""
    if description.cause is not None:
        error.__cause__ = _rebuild(description.cause, "")
    if description.pickled is not None and isinstance(error, BaseExceptionGroup):
        for member, each in zip(error.exceptions, description.members, strict=False):
            _link(member, each)


# -- of hostile errors -----------------------------------------------------------------------------------------------------------------


def _pickled(error: BaseException) -> bytes | None:
    try:
        data = pack(error, outside=False).data
        if len(data) > MOST:
            return None
        again = pickle.loads(data)
        str(again)
    except BaseException:  # user code: __reduce__, __init__ and __str__ may raise whatever they like
        return None
    return data if type(again) is type(error) else None


def _name(error: BaseException) -> str:
    cls = type(error)
    try:
        module, name = str(cls.__module__), str(cls.__qualname__)
    except BaseException:  # user code: a metaclass may answer for both
        module, name = "builtins", type.__dict__["__name__"].__get__(cls)
    return cut(name if module == "builtins" else f"{module}.{name}")


def _message(error: BaseException) -> str:
    try:
        return cut(error.message if isinstance(error, BaseExceptionGroup) else str(error))
    except BaseException as worse:  # user code: __str__ may raise whatever it likes
        return f"<the error's own text could not be made: {type(worse).__name__}>"


def _notes(error: BaseException) -> tuple[str, ...]:
    with suppress(BaseException):
        return tuple(cut(str(note)) for note in getattr(error, "__notes__", ()))
    return ()


def _cause(error: BaseException) -> BaseException | None:
    with suppress(BaseException):
        return error.__cause__
    return None
