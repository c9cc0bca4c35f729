"""Open calls of a pool, or of one of its limited views: submitted and not ended."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stem_iso.isolate.pool.ticket import PoolCall


class OpenCalls:
    """Used under the lock of its pool. `drained` is set once it is shut and empty."""

    def __init__(self) -> None:
        self.live: set[PoolCall] = set()
        self.is_shut = False
        self.drained = Event()

    def refuse_if_shut(self) -> None:
        if self.is_shut:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def leave(self, ticket: PoolCall) -> None:
        self.live.discard(ticket)
        if self.is_shut:
            self._look()

    def shut(self) -> None:
        self.is_shut = True
        self._look()

    def _look(self) -> None:
        if not self.live:
            self.drained.set()
