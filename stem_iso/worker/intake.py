"""The intake of a worker: from which queues it takes tasks, and how many at a time. Operators change it while the worker runs.

    options ──> queues, seats          what is paused, drain, seats ──> takes(queue, task)? · queues to fetch from · open?

Rules
 1. What runs is none of its business: a pause, a drain and a smaller number of seats let it end.
 2. A delivery of a paused queue goes back, one of a paused task is put aside by the broker; both only as long as they have not begun.
 3. Whatever changes calls `changed` at once: the consumer then looks at what it has at hand, before anybody is told that it was done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stem_iso.brokers.operations import Pauses


class Intake:
    """Owned by the consumer thread; `seats` and `draining` may be read by any."""

    def __init__(self, queues: Sequence[str], seats: int) -> None:
        self._served = tuple(queues)
        self.seats = seats
        self.draining = False
        self.paused = Pauses()
        self.queues = self._served  # those to fetch from
        self.open = True  # anything may be fetched
        self.changed: Callable[[], None] = _ignore  # set by the consumer

    def __repr__(self) -> str:
        return f"<Intake {self.seats} seats | {', '.join(self.queues) or 'all paused'}{' | draining' if self.draining else ''}>"

    def takes(self, queue: str, name: str) -> bool:
        """Whether a task of this name may begin that comes from this queue."""
        return not (self.draining or queue in self.paused.queues or name in self.paused.tasks)

    def takes_from(self, queue: str) -> bool:
        return not (self.draining or queue in self.paused.queues)

    def pause(self, pauses: Pauses) -> None:
        """This is paused now, and nothing else."""
        if pauses != self.paused:
            self.paused = pauses
            self.queues = tuple(queue for queue in self._served if queue not in pauses.queues)
            self._settle()

    def drain(self, draining: bool) -> None:
        if draining != self.draining:
            self.draining = draining
            self._settle()

    def resize(self, seats: int) -> None:
        if seats != self.seats:
            self.seats = seats
            self._settle()

    def _settle(self) -> None:
        self.open = bool(self.queues) and not self.draining
        self.changed()


def _ignore() -> None:
    """Before the consumer is there, there is nothing at hand."""
