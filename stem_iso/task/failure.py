"""Failures: a `Failed` out of any exception, however hostile: one whose `__str__` raises, causes in a circle, a message of 100 MB.

The traceback begins at the user's handler: the frames above it are this package's (and the event loop's) and say nothing about the error.
"""

from __future__ import annotations

import traceback
from types import TracebackType

from stem_iso.outcome import Failed, TaskError
from stem_iso.task.names import dotted
from stem_iso.text import cut, cut_inside

LIBRARY = ("stem_iso", "asyncio", "contextlib", "contextvars")


class NotRetryable(Exception):
    """Base of errors that no further attempt would end otherwise."""


def failed(error: BaseException, main: str | None = None, retryable: bool = True) -> Failed:
    """`main` is what the module name `__main__` stands for, if not this process's own."""
    kinds = tuple(_name(cls, main) for cls in type(error).__mro__ if cls is not object)
    retryable = retryable and NotRetryable not in type(error).__mro__
    task_error = TaskError(type=kinds[0], message=message_of(error), traceback=_traceback(error), retryable=retryable)
    return Failed(task_error, kinds)


def _name(cls: type, main: str | None) -> str:
    try:
        return cut(dotted(cls, main))
    except BaseException:  # user code: a metaclass may answer for `__module__` and `__qualname__`
        return cut(type.__dict__["__name__"].__get__(cls))


def message_of(error: BaseException) -> str:
    """The text of any exception, of a size and kind that can be stored."""
    try:
        return cut(str(error))
    except BaseException as worse:  # user code: __str__ may raise whatever it likes
        return f"<the error's own text could not be made: {type(worse).__name__}>"


def _traceback(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(type(error), error, below_library(error.__traceback__))
        return cut_inside("".join(lines))
    except BaseException as worse:  # user code again: __cause__, __notes__, __str__ of any link of the chain
        frames = "".join(traceback.format_tb(below_library(error.__traceback__)))
        return cut_inside(f"{frames}{type(error).__name__} <its traceback could not be made: {type(worse).__name__}>")


def below_library(frames: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is not ours; all of it where every frame is."""
    first = frames
    while first is not None:
        module = str(first.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in LIBRARY:
            return first
        first = first.tb_next
    return frames
