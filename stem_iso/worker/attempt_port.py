"""The port that attempts report to: the consumer's inbox, the log of their output, and whether anybody listens to their begin."""

from __future__ import annotations

from collections.abc import Callable

from stem_iso.events import WorkerEventType
from stem_iso.worker.attempt import Attempt, Message
from stem_iso.worker.inbox import Inbox
from stem_iso.worker.reporting.events import EventEmitter

Output = Callable[[Attempt, int, str, str, bytes], object]  # attempt, level, logger, text, details; must not block


class AttemptReports:
    """Used by every thread that runs attempts."""

    def __init__(self, inbox: Inbox[Message], events: EventEmitter, output: Output) -> None:
        self.put, self.put_now = inbox.put, inbox.put_now
        self.output = output
        self._events = events

    @property
    def wants_begun(self) -> bool:
        return self._events.wants(WorkerEventType.STARTED) or self._events.signals.wants_begun
