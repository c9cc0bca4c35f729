"""How a thread waits for an end: it leaves a token where the task is, looks, and sleeps on a list of its own.

    look ─ ended ─> answer                          who ends the task ── RPUSH <P>:e:<token> ── for each token of the id
      └ register token ─> look ─> BLPOP, a slice ─┐
             ^────────────────────────────────────┘

Registered before the look that is slept on, so an end between the two is seen by the one or rings the other. A slice is short: what a
failover took with it (a registration, a ring) costs one slice. Who leaves takes its token along; the token of one that was killed goes with
the end of the task, and the list that is then rung for nobody after a minute.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import TypeVar

from stem_iso.brokers.redis.links import Links
from stem_iso.brokers.redis.parked import Parked
from stem_iso.errors import BrokerUnavailable

T = TypeVar("T")

SLICE = 2.0  # seconds
PATIENCE = 2.0  # beyond a slice: a server that does not even answer then is taken for dead


def until(links: Links, key: str, id: str, look: Callable[[], T | None], late: Callable[[], str], timeout: float | None) -> T:
    """What `look` answers, as soon as it does. `key`: the slot of the task, or of the group. Raises TimeoutError, and as `look`."""
    deadline = inf if timeout is None else time.monotonic() + timeout
    if (found := look()) is not None:
        return found
    if deadline <= time.monotonic():
        raise TimeoutError(late())
    pillow = _Pillow(links, key)
    try:
        while True:
            links.call("wait", key, id, pillow.token)
            if (found := look()) is not None:
                return found
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(late())
            pillow.sleep(min(left, SLICE))
    finally:
        pillow.leave(id)


class _Pillow:
    """A list that only this waiter sleeps on, over one connection."""

    def __init__(self, links: Links, key: str) -> None:
        self._links, self._key = links, key
        self.token = uuid.uuid4().hex
        self._parked: Parked | None = None
        self._refused = False  # the last connection could not even be made

    def sleep(self, seconds: float) -> None:
        """Until it is rung; sooner where the connection breaks, for then it is time to look. Raises where none is to be had twice."""
        try:
            if self._parked is None:
                self._parked = self._links.park(self._key)
            self._refused = False
            self._parked.write("BLPOP", f"{self._key}:e:{self.token}", max(0.001, seconds))
            deadline = time.monotonic() + seconds + PATIENCE
            while not self._parked.answers():
                if (left := deadline - time.monotonic()) <= 0:
                    return self._close()
                self._parked.poll(left)
        except BrokerUnavailable:
            if self._refused:
                raise
            self._refused = self._parked is None
            self._close()

    def leave(self, id: str) -> None:
        self._close()
        with suppress(BrokerUnavailable):  # the token goes with the end of the task; the answer, or the error on its way, matters more
            self._links.call("unwait", self._key, id, self.token)

    def _close(self) -> None:
        if self._parked is not None:
            self._parked.close()
            self._parked = None
