"""A `Failed` out of any exception at all, however hostile: one whose `__str__` raises, with causes in a circle, or a message of 100 MB.

The traceback begins at the user's handler: the frames above it are this package's (and the event loop's) and say nothing about the error.
"""

from __future__ import annotations

import traceback
from types import TracebackType

from stem_iso.outcome import Failed, TaskError
from stem_iso.task.names import dotted

MESSAGE_LIMIT = 64 << 10
TRACEBACK_LIMIT = 256 << 10
OURS = ("stem_iso", "asyncio", "contextlib", "contextvars")


def failed(error: BaseException, main: str | None = None, retryable: bool = True) -> Failed:
    """`main` is what the module name `__main__` stands for, if not this process's own."""
    kinds = tuple(dotted(cls, main) for cls in type(error).__mro__ if cls is not object)
    task_error = TaskError(type=kinds[0], message=message_of(error), traceback=_traceback(error), retryable=retryable)
    return Failed(task_error, kinds)


def message_of(error: BaseException) -> str:
    """The text of any exception, cut to `MESSAGE_LIMIT`."""
    try:
        return cut(str(error), MESSAGE_LIMIT)
    except BaseException as worse:  # user code: __str__ may raise whatever it likes
        return f"<the error's own text could not be made: {type(worse).__name__}>"


def _traceback(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(type(error), error, below_ours(error.__traceback__))
        return cut_inside("".join(lines), TRACEBACK_LIMIT)
    except BaseException as worse:  # user code again: __cause__, __notes__, __str__ of any link of the chain
        frames = "".join(traceback.format_tb(below_ours(error.__traceback__)))
        return cut_inside(f"{frames}{type(error).__name__} <its traceback could not be made: {type(worse).__name__}>", TRACEBACK_LIMIT)


def below_ours(frames: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is not ours; all of it where every frame is."""
    first = frames
    while first is not None:
        module = str(first.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in OURS:
            return first
        first = first.tb_next
    return frames


def cut(text: str, limit: int) -> str:
    """At most `limit` bytes of text, and a word on what is missing. Lone surrogates, which no message can carry, are replaced."""
    head = _encoded(text[:limit])[:limit].decode("utf-8", "ignore")
    missing = len(text) - len(head)
    return f"{head}\n… {missing} more characters were cut off here (at {limit >> 10} KiB)" if missing else head


def cut_inside(text: str, limit: int) -> str:
    """As `cut`, but the middle goes: a traceback says at its head where the handler was, and at its end what happened."""
    if len(text) <= limit and len(whole := _encoded(text)) <= limit:
        return whole.decode()
    half = limit // 2
    head = _encoded(text[:half])[:half].decode("utf-8", "ignore")
    tail = _encoded(text[-half:])[-half:].decode("utf-8", "ignore")
    return f"{head}\n… {len(text) - len(head) - len(tail)} characters were cut out here (past {limit >> 10} KiB) …\n{tail}"


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")
