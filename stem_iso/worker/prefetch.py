"""Prefetch: how many deliveries may wait in this worker for a seat. Pure.

One exchange with SQLite costs 60 µs for one task and 240 µs for sixteen. So a worker whose tasks last a millisecond fetches some more tasks
than it has seats: a seat that falls free is filled without a request, and what ended meanwhile is settled in one step.

Rules
 1. Only tasks that have lately been short are fetched ahead, and only as many as the seats should finish within `AHEAD`: what waits here
    could run elsewhere.
 2. One long task ends it at once: the estimate rises fast and falls slowly.
 3. What has waited for `PATIENCE` goes back to the queue (a task that waits behind a long one while another worker idles is a defect), and
    fetching ahead stops until many short tasks have ended again.
"""

from __future__ import annotations

SHORT = 0.005  # seconds: above it, a task's own time hides the cost of an exchange
AHEAD = 0.01
PATIENCE = 0.03
MOST = 64


class Pace:
    """Owned by the consumer thread."""

    def __init__(self) -> None:
        self._typical = 1.0  # seconds an attempt lasts; nobody knows at first, so nothing is fetched ahead

    def ended(self, elapsed: float) -> None:
        self._typical += (elapsed - self._typical) * (0.3 if elapsed > self._typical else 0.1)

    def stalled(self) -> None:
        """Something waited for too long."""
        self._typical = 0.1

    def stock(self, seats: int) -> int:
        if self._typical > SHORT:
            return 0
        return min(MOST, int(seats * AHEAD / max(self._typical, 0.0001)))
