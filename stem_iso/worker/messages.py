"""What the consumer is told by other threads, in order: one small value per message, and the only road into the consumer's state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from stem_iso.isolate.interfaces import Answer, IsolateNotice, LimitNotice
from stem_iso.outcome import Outcome

if TYPE_CHECKING:
    from stem_iso.worker.attempt import Attempt

# Structs, not frozen dataclasses: made in C, they cost a tenth, and one is made per task on the hot path.


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
    """Something is wrong that is nobody's outcome; it becomes an ERROR event."""

    message: str
    traceback: str = ""
    attempt: Attempt | None = None


class StopAsked(msgspec.Struct):
    at_once: bool


Message = AttemptEnded | Begun | HandlerMessage | Beaten | LimitReached | IsolateChanged | Trouble | StopAsked
