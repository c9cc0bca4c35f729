"""The messages of other threads to the consumer, which come in order and are the only way to change its state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from stem_iso.isolate.interfaces import Answer, IsolateNotice, LimitNotice
from stem_iso.outcome import Outcome

if TYPE_CHECKING:
    from stem_iso.worker.attempt import Attempt

# Structs, not frozen dataclasses: they are made in C and cost a tenth, and each task makes one on the hot path.


class AttemptEnded(msgspec.Struct):
    attempt: Attempt
    outcome: Outcome
    at: float  # monotonic


class Begun(msgspec.Struct):
    attempt: Attempt


class HandlerMessage(msgspec.Struct):
    attempt: Attempt
    payload: bytes
    answer: Answer | None


class Beaten(msgspec.Struct):
    attempt: Attempt


class LimitReached(msgspec.Struct):
    attempt: Attempt
    notice: LimitNotice


class IsolateChanged(msgspec.Struct):
    notice: IsolateNotice


class Trouble(msgspec.Struct):
    """An error that is no task's outcome; it becomes an ERROR event."""

    message: str
    traceback: str = ""
    attempt: Attempt | None = None


class StopAsked(msgspec.Struct):
    at_once: bool


Message = AttemptEnded | Begun | HandlerMessage | Beaten | LimitReached | IsolateChanged | Trouble | StopAsked
