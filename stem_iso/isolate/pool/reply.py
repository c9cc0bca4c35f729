"""Replies of a pool's calls: from the runtime's `Outcome` to bytes that the asker opens, or to an error that is known here."""

from __future__ import annotations

from typing import Any, assert_never

from stem_iso.errors import IsolateBootError, IsolateCrashed, MemoryLimitExceeded, RemoteError, TimeoutException
from stem_iso.isolate import payload
from stem_iso.isolate.remote_errors import rebuild
from stem_iso.outcome import (
    BootFailed,
    Crashed,
    Failed,
    MemoryExceeded,
    Outcome,
    Rejected,
    RetryAsked,
    Skipped,
    Stopped,
    Succeeded,
    TimedOut,
    Unregistered,
)


class Reply:
    """What a function returned or raised, packed; `memory` is what came beside it."""

    __slots__ = ("_data", "_memory", "failed")

    def __init__(self, data: bytes, memory: memoryview | None) -> None:
        self._data, self._memory = data, memory
        self.failed = payload.raised(data)

    def open(self) -> tuple[Any, BaseException | None]:
        """The value, or the error that it is, or the one that unpickling raised. Runs user code."""
        try:
            value = payload.unpack(self._data, self._memory)
            return (None, rebuild(*value)) if self.failed else (value, None)
        except Exception as error:  # unpickling is user code
            error.add_note("The function returned, but its result cannot be loaded in this process.")
            return None, error


def error_of(outcome: Outcome) -> BaseException | None:
    """None where there is none: it succeeded, or it was stopped."""
    match outcome:
        case Succeeded() | Stopped():
            return None
        case TimedOut():
            return TimeoutException(**outcome.facts())
        case MemoryExceeded(limit, rss):
            return MemoryLimitExceeded(limit, rss)
        case Crashed(exit_code, signal, stderr, stack, out_of_memory, by_operator):
            return IsolateCrashed(exit_code, signal, stderr, stack, out_of_memory, by_operator)
        case BootFailed(traceback):
            return IsolateBootError(traceback)
        case Failed(error):
            return RemoteError(error.type, error.message, error.traceback)
        case RetryAsked() | Rejected() | Skipped() | Unregistered():  # a function wrote it to the call pipe by itself
            return IsolateCrashed(stderr="the isolate sent a reply that no function of a pool makes")
    assert_never(outcome)
